"""What the page's server hands out, and to whom."""

import json
import re
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest
from starlette.testclient import TestClient

from config.settings import HttpSettings
from streaming_job.http import HttpServer
from streaming_job.latency.dashboard import server
from streaming_job.latency.dashboard.feed import Feed
from streaming_job.latency.dashboard.server import STATIC, application


def client(*, token: str | None = None) -> TestClient:
    app = application(Feed([NoSource()], target_ms=2_000), token=token)
    return TestClient(app, base_url="http://127.0.0.1", follow_redirects=False)


class NoSource:
    """Never answered."""

    from streaming_job.latency.dashboard.scrape import Answer, Source  # noqa: PLC0415 - beside what they are for

    source = Source("job", "http://127.0.0.1:1/metrics")
    answer = Answer()


def test_every_answer_carries_a_policy_that_allows_nothing_from_elsewhere() -> None:
    web = client()
    for path in ("/", "/static/app.js", "/api/series", "/nothing-here"):
        policy = web.get(path).headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        assert "http" not in policy


def test_the_page_names_no_address_but_its_own() -> None:
    texts = [
        path for path in STATIC.rglob("*") if path.suffix in {".html", ".css", ".js"} and "vendor" not in path.parts
    ]
    assert len(texts) > 8
    for path in texts:
        outside = re.findall(r"(?:https?:)?//[a-z][\w.-]+\.\w+", path.read_text(encoding="utf-8"))
        assert [address for address in outside if address != "http://www.w3.org"] == [], path


def test_what_is_vendored_has_its_licence_beside_it() -> None:
    vendored = {path.name.split(".")[0] for path in (STATIC / "vendor").iterdir() if path.suffix != ".LICENSE"}
    assert vendored == {"uPlot", "Inter"}
    assert all((STATIC / "vendor" / f"{name}.LICENSE").is_file() for name in vendored)


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [":root {", ':root[data-theme="dark"] {'])
def test_every_text_colour_can_be_read_on_every_ground_it_stands_on(theme: str) -> None:
    """Contrast as WCAG 2.2 AA asks of text of any size."""
    rules = (STATIC / "style.css").read_text(encoding="utf-8").split(theme, 1)[1].split("}", 1)[0]
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", rules))
    on_cards = [
        (text, ground) for text in ("ink", "soft", "faint", "bad", "watch", "good") for ground in ("paper", "card")
    ]
    on_washes = [
        (text, f"{level}-wash") for level in ("good", "watch", "bad", "unknown") for text in (level, "ink", "soft")
    ]
    for text, ground in on_cards + on_washes:
        light, dark = sorted((_luminance(colours[text]), _luminance(colours[ground])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ground)


def test_a_request_by_another_host_name_is_refused() -> None:
    assert client().get("/", headers={"host": "evil.example"}).status_code == 400


@pytest.mark.parametrize("path", ["/", "/api/series", "/api/events", "/static/app.js"])
@pytest.mark.parametrize(
    "headers", [{"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}]
)
def test_a_page_of_another_origin_gets_nothing(path: str, headers: dict[str, str]) -> None:
    answer = client().get(path, headers=headers)
    assert answer.status_code == 403
    assert "content-security-policy" in answer.headers


def test_no_file_outside_the_pages_folder_is_served() -> None:
    assert client().get("/static/../server.py").status_code == 404
    assert client().get("/static/%2e%2e/server.py").status_code == 404


@pytest.mark.parametrize("path", ["/", "/api/series", "/api/events", "/static/app.js"])
def test_where_a_token_is_required_nothing_is_shown_without_it(path: str) -> None:
    web = client(token="right")
    assert web.get(path).status_code == 401
    assert web.get(path, headers={"authorization": "Bearer wrong"}).status_code == 401
    assert web.get(path, headers={"cookie": "lakestream_token=wrong"}).status_code == 401
    assert web.get(f"{path}?token=wrong").status_code == 401


def test_a_token_in_the_address_becomes_a_cookie_and_leaves_the_address() -> None:
    web = client(token="right")
    opened = web.get("/?token=right")
    assert (opened.status_code, opened.headers["location"]) == (303, "/")
    assert {"HttpOnly", "SameSite=strict"} <= set(opened.headers["set-cookie"].split("; "))
    assert web.get("/").status_code == 200
    assert client(token="right").get("/", headers={"authorization": "Bearer right"}).status_code == 200


@pytest.mark.parametrize("asked", ["x", "-1", "1e9", "99999999999999999999", "٣"])
def test_a_range_that_is_no_number_of_seconds_is_refused(asked: str) -> None:
    assert client().get("/api/series", params={"range_s": asked}).status_code == 400


@pytest.mark.parametrize(
    ("range_s", "step_s"), [(1, 1), (300, 1), (301, 5), (3_600, 5), (86_400, 60), (999_999_999, 60)]
)
def test_a_range_gets_the_finest_resolution_that_covers_it(range_s: int, step_s: int) -> None:
    assert client().get("/api/series", params={"range_s": range_s}).json()["step_s"] == step_s


def test_events_bring_the_newest_snapshot_and_end_when_the_server_does(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = Feed([NoSource()], target_ms=2_000)
    monkeypatch.setattr(server, "PAGES_MAX", 1)
    running = HttpServer(application(feed), HttpSettings())
    running.start()
    feed.tick(1_795_262_400.3)
    address = urlsplit(running.url).netloc
    first, second = HTTPConnection(address, timeout=10), HTTPConnection(address, timeout=10)
    first.request("GET", "/api/events")
    events = first.getresponse()
    assert events.headers["content-type"].startswith("text/event-stream")
    assert events.readline() == b"retry: 1000\n"
    events.readline()
    assert events.readline() == b"id: 1\n"
    body = json.loads(events.readline().removeprefix(b"data: "))
    assert body["verdict"]["state"] == "connecting"
    second.request("GET", "/api/events")
    assert second.getresponse().status == 503
    feed.close()
    assert events.read() == b"\n"
    running.stop()
    first.close()
    second.close()
