"""Asking a process for its figures, over real HTTP, whatever answers there."""

import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from streaming_job.latency.dashboard import scrape
from streaming_job.latency.dashboard.scrape import Scraper, Source, until_next

Serve = Callable[[int, bytes], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[HTTPServer] = []

    def started(status: int, body: bytes) -> str:
        class Says(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                """Nothing on the test's output."""

        server = HTTPServer(("127.0.0.1", 0), Says)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/metrics"

    yield started
    for server in servers:
        server.shutdown()
        server.server_close()


def scraped(url: str) -> Scraper:
    scraper = Scraper(Source("job", url))
    scraper.scrape()
    return scraper


def test_figures_are_read_and_what_was_known_stays_known_after_the_end(serve: Serve) -> None:
    scraper = scraped(serve(200, b'lakestream_changes_total{table="a \\"b\\""} 7\n'))
    assert scraper.answer.failure is None
    (sample,) = scraper.answer.samples.of("lakestream_changes_total")
    assert (sample.labels, sample.value) == ({"table": 'a "b"'}, 7)
    scraper.source = Source("job", "http://127.0.0.1:9/metrics")
    scraper.scrape()
    assert (scraper.answer.failure, scraper.answer.refused) == ("nobody listens there", True)
    assert scraper.answer.samples.total("lakestream_changes_total") == 7


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (503, b"", "it answered 503"),
        (200, b"<html>not figures</html>", ""),
        (200, b"\xff\xfe", ""),
        (200, b"lakestream_changes_total{table=", ""),
    ],
)
def test_an_answer_that_holds_no_figures_is_a_failure_with_a_reason(
    serve: Serve, status: int, body: bytes, says: str
) -> None:
    answer = scraped(serve(status, body)).answer
    assert answer.failure
    assert says in answer.failure
    assert not answer.refused


def test_an_endless_answer_is_given_up_at_a_bound(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape, "_BYTES_MAX", 1_000)
    assert "larger than 1000 bytes" in str(scraped(serve(200, b"a 1\n" * 1_000)).answer.failure)


def test_a_process_that_accepts_and_says_nothing_is_given_up_in_time() -> None:
    """As a suspended process does: the kernel takes the connection, nobody reads it."""
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        scraper = Scraper(Source("job", f"http://127.0.0.1:{mute.getsockname()[1]}/metrics"), timeout_s=0.05)
        scraper.scrape()
    assert scraper.answer.failure == "no answer within 0.05 s"
    assert not scraper.answer.refused


def test_the_next_look_is_never_now_and_never_more_than_a_second_away() -> None:
    waits = [until_next(offset / 10) for offset in range(10)]
    assert all(0 < wait <= 1.001 for wait in waits)
