"""`lakestream dashboard` as a process: its address, its token, its end; it needs no job to be there."""

import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

LAKESTREAM = Path(sys.executable).with_name("lakestream")
NO_JOB = ("--metrics", "http://127.0.0.1:9/metrics")

Start = Callable[..., tuple[subprocess.Popen[str], str]]


@pytest.fixture
def start() -> Iterator[Start]:
    running: list[subprocess.Popen[str]] = []

    def started(*options: str) -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(
            [str(LAKESTREAM), "dashboard", *NO_JOB, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        running.append(process)
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    yield started
    for process in running:
        process.kill()
        process.communicate()


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - the process's own address
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_it_prints_its_address_serves_the_page_without_a_job_and_ends_on_sigterm(start: Start) -> None:
    process, address = start()
    assert address.startswith("http://127.0.0.1:")
    assert status(address) == 200
    with urllib.request.urlopen(f"{address}api/events", timeout=10) as events:  # noqa: S310 - as above
        assert events.readline() == b"retry: 1000\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0


def test_bound_elsewhere_it_asks_for_a_token_that_it_prints(start: Start) -> None:
    _, address = start("--host", "0.0.0.0")  # noqa: S104 - this is what is tested
    base, token = address.replace("0.0.0.0", "127.0.0.1").split("?token=")  # noqa: S104 - as above
    assert len(token) >= 32
    assert status(base) == 401
    assert status(f"{base}api/series") == 401


def test_a_taken_port_is_one_line_and_exit_code_2(start: Start) -> None:
    _, address = start()
    port = address.rstrip("/").rsplit(":", 1)[1]
    done = subprocess.run(
        [str(LAKESTREAM), "dashboard", *NO_JOB, "--port", port], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
