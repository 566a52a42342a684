"""What lies on this machine is asked directly, where the environment names a proxy and forgets NO_PROXY."""

import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from config.loopback import proxies_to
from config.settings import AwsSettings
from infra.local.job_figures import read_figures
from streaming_job.aws import client
from streaming_job.kinesis.aws import connect
from streaming_job.kinesis.options import Options


class Answering(BaseHTTPRequestHandler):
    """`{}` to whatever is asked."""

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b"{}" if self.command == "POST" else b"# nothing\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815 - the base class's name

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Of one who answers, while every proxy is a port where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"):
            monkeypatch.setenv(name, nobody)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "local")
        server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        serving.join()
        server.server_close()


def by_an_operation(address: str) -> bool:
    made = client(AwsSettings(region="us-east-1", endpoint=address), "kinesis", attempts=1)
    return "ResponseMetadata" in made.list_streams()


def by_the_kinesis_source(address: str) -> bool:
    made = connect(Options(streams=("changes",), region="us-east-1", endpoint_url=address))
    return "ResponseMetadata" in made._client.list_streams()


def by_the_demo(address: str) -> bool:
    return read_figures(f"{address}/metrics", "cars").answered


@pytest.mark.parametrize("asked", [by_an_operation, by_the_kinesis_source, by_the_demo])
def test_a_proxy_has_no_part_in_what_lies_on_this_machine(asked: Callable[[str], bool], address: str) -> None:
    assert asked(address)


@pytest.mark.parametrize("url", [None, "https://kinesis.us-east-1.amazonaws.com", "https://127.0.0.1.example.com"])
def test_whatever_lies_elsewhere_goes_by_the_environments_proxies(url: str | None) -> None:
    assert proxies_to(url) is None
