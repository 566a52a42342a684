import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from prometheus_client import CollectorRegistry
from starlette.testclient import TestClient

from config.errors import ConfigurationError
from config.settings import HttpSettings
from streaming_job.health import Health, State
from streaming_job.http import HttpServer, application, metrics_application
from streaming_job.latency.book import LatencyBook
from streaming_job.latency.hops import CLOCKS
from streaming_job.metrics import JobMetrics


class SteppedClock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def client(health: Health, book: LatencyBook | None = None) -> TestClient:
    metrics = JobMetrics(book or LatencyBook(), health)
    return TestClient(application(metrics.registry, health), base_url="http://127.0.0.1")


def figure(web: TestClient, name: str) -> float:
    return next(float(line.split()[1]) for line in web.get("/metrics").text.splitlines() if line.startswith(f"{name} "))


def test_health_goes_from_starting_to_ready_to_stalled_to_ready_to_stopping() -> None:
    clock = SteppedClock()
    health = Health(unhealthy_after_s=60, clock=clock)
    web = client(health)
    assert (web.get("/healthz").status_code, web.get("/healthz").json()["state"]) == (503, State.STARTING)
    health.progressed()
    assert web.get("/healthz").status_code == 200
    clock.now = 61
    stalled = web.get("/healthz")
    assert (stalled.status_code, stalled.json()["reason"]) == (503, "no batch committed for 61 s (limit 60 s)")
    health.progressed()
    assert web.get("/healthz").json()["state"] == State.READY
    health.stopping()
    assert web.get("/healthz").json()["state"] == State.STOPPING


def test_metrics_say_what_health_says_and_for_how_long_a_stalled_job_has_shown_no_progress() -> None:
    """Whoever reads /metrics alone, as the page does, must not take a hung batch for a quiet stream."""
    clock = SteppedClock()
    health = Health(unhealthy_after_s=60, clock=clock)
    web = client(health)

    def said() -> tuple[float, float]:
        return figure(web, "lakestream_ready"), figure(web, "lakestream_stalled_seconds")

    assert said() == (0, 0)
    health.progressed()
    clock.now = 60
    assert said() == (1, 0)
    clock.now = 61
    assert said() == (0, 61)
    health.progressed()
    assert said() == (1, 0)
    health.stopping()
    assert said() == (0, 0)
    clock.now = 200
    assert said() == (0, 139), "a batch that hangs while the job is asked to stop"


def test_metrics_show_the_last_minutes_percentiles_by_hop() -> None:
    now_ms = int(time.time() * 1000)
    book = LatencyBook()
    columns = {name: pa.array(np.full(10, now_ms - 900, dtype=np.int64)) for name in CLOCKS}
    book.record(pa.table(columns), table="cars", batch="b", batch_start_ms=now_ms - 500, commit_ms=now_ms)
    text = client(Health(60), book).get("/metrics").text
    line = next(
        line
        for line in text.splitlines()
        if 'hop="origin_to_commit",quantile="0.5"' in line and not line.startswith("#")
    )
    assert float(line.rsplit(" ", 1)[1]) == pytest.approx(900, rel=0.01)
    assert 'lakestream_hop_changes{hop="origin_to_commit",table="cars"} 10.0' in text


def test_a_request_for_another_host_name_is_refused() -> None:
    assert client(Health(60)).get("/metrics", headers={"host": "evil.example"}).status_code == 400


FOREIGN = (
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": "http://127.0.0.1:1"},
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
    {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"},
    {"sec-fetch-site": "cross-site"},
)
OWN: tuple[dict[str, str], ...] = (
    {},
    {"origin": "http://127.0.0.1"},
    {"sec-fetch-site": "none", "sec-fetch-mode": "navigate"},
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"},
    {"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"},
)


@pytest.mark.parametrize("path", ["/metrics", "/healthz"])
@pytest.mark.parametrize(("headers", "status"), [*((h, 403) for h in FOREIGN), *((h, 200) for h in OWN)])
def test_a_page_of_another_origin_gets_no_answer_and_a_person_or_a_scraper_does(
    headers: dict[str, str], status: int, path: str
) -> None:
    health = Health(60)
    health.progressed()
    answer = client(health).get(path, headers=headers)
    assert answer.status_code == status
    assert not any(name.startswith("access-control-") for name in answer.headers)


@pytest.mark.parametrize(
    ("headers", "status"), [({"host": "evil.example"}, 400), *((h, 403) for h in FOREIGN), ({}, 200)]
)
def test_every_other_process_guards_its_metrics_in_the_same_way(headers: dict[str, str], status: int) -> None:
    web = TestClient(metrics_application(CollectorRegistry()), base_url="http://127.0.0.1")
    assert web.get("/metrics", headers=headers).status_code == status


def test_no_process_serves_metrics_past_the_guards() -> None:
    """prometheus_client's own server answers whoever asks, by whatever name."""
    root = Path(__file__).parents[2]
    serving = [
        path.relative_to(root).as_posix()
        for package in ("streaming_job", "infra", "bridge_lambda")
        for path in (root / package).rglob("*.py")
        if "start_http_server" in path.read_text(encoding="utf-8")
    ]
    assert serving == []


def test_a_taken_port_is_refused_by_name() -> None:
    health = Health(60)
    app = application(JobMetrics(LatencyBook(), health).registry, health)
    first = HttpServer(app, HttpSettings())
    try:
        with pytest.raises(ConfigurationError, match=r"cannot listen on 127\.0\.0\.1:\d+: Address already in use"):
            HttpServer(app, HttpSettings(port=int(first.url.rsplit(":", 1)[1])))
    finally:
        first.start()
        first.stop()
