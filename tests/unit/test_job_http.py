import time

import numpy as np
import pyarrow as pa
import pytest
from starlette.testclient import TestClient

from config.errors import ConfigurationError
from config.settings import HttpSettings
from streaming_job.health import Health, State
from streaming_job.http import HttpServer, application
from streaming_job.latency.book import LatencyBook
from streaming_job.latency.hops import CLOCKS
from streaming_job.metrics import JobMetrics


class SteppedClock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def client(health: Health, book: LatencyBook | None = None) -> TestClient:
    return TestClient(application(JobMetrics(book or LatencyBook()).registry, health), base_url="http://127.0.0.1")


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


def test_a_taken_port_is_refused_by_name() -> None:
    app = application(JobMetrics(LatencyBook()).registry, Health(60))
    first = HttpServer(app, HttpSettings())
    try:
        with pytest.raises(ConfigurationError, match=r"cannot listen on 127\.0\.0\.1:\d+: Address already in use"):
            HttpServer(app, HttpSettings(port=int(first.url.rsplit(":", 1)[1])))
    finally:
        first.start()
        first.stop()
