"""The whole path on the real parts, as a user runs it: by commands and the files they write, killed in the middle."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

pytestmark = [pytest.mark.stack, pytest.mark.spark, pytest.mark.timeout(600)]

LAKESTREAM = Path(sys.executable).parent / "lakestream"
TABLE = "chargeminder-car-telemetry"
PATIENCE_S = 120


def lakestream(*arguments: str | Path, exit_code: int = 0) -> Any:
    done = subprocess.run([LAKESTREAM, *arguments, "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == exit_code, f"{arguments} ended with {done.returncode}: {done.stderr[-2000:]}"
    return json.loads(done.stdout)


class Stack:
    def __init__(self, home: Path, facts: dict[str, Any]) -> None:
        self.home = home
        self.facts = facts
        self.sent = 0

    def load(self, *, rate: int, seconds: int) -> None:
        summary = lakestream("local", "load", "--dir", self.home, "--rate", str(rate), "--seconds", str(seconds))
        assert summary["errors"] == 0
        self.sent += summary["sent_total"]

    def history_rows(self) -> int:
        try:
            return DeltaTable(self.facts["tables"][TABLE]["history"]).count()
        except TableNotFoundError:
            return 0

    def wait_for_all(self) -> None:
        wait_for(
            lambda: self.history_rows() >= self.sent, lambda: f"{self.history_rows()} of {self.sent} changes arrived"
        )

    def verify(self, exit_code: int = 0) -> dict[str, Any]:
        report: dict[str, Any] = lakestream("verify", "--config", self.home / "job.yaml", exit_code=exit_code)[TABLE]
        return report


def wait_for(condition: Callable[[], bool], state: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"after {PATIENCE_S} s: {state()}"
        time.sleep(0.2)


@pytest.fixture
def stack(tmp_path: Path, emulator_options: list[str]) -> Iterator[Stack]:
    facts = lakestream("local", "up", "--dir", tmp_path, *emulator_options)
    try:
        yield Stack(tmp_path, facts)
    finally:
        lakestream("local", "down", "--dir", tmp_path)
        left = [name for name, process in facts["processes"].items() if runs(process["pid"])]
        assert left == [], "down left a process behind"


def runs(pid: int) -> bool:
    """An ended process may stand in the table until its parent looks."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_every_change_arrives_once_and_in_order_though_the_job_and_the_mapping_are_killed_in_the_middle(
    stack: Stack,
) -> None:
    """Load, kill -9 of mapping and job under load, start again: history holds each change once, verify says equal."""
    stack.load(rate=60, seconds=8)
    stack.wait_for_all()
    assert stack.verify()["equal"]

    killed = subprocess.Popen(
        [LAKESTREAM, "local", "load", "--dir", stack.home, "--rate", "60", "--seconds", "10", "--json"],
        stdout=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: stack.history_rows() > stack.sent + 60, lambda: "the second load does not arrive")
    restarted = [restart(stack, name) for name in ("job", "mapping")]
    try:
        output, _ = killed.communicate()
        stack.sent += json.loads(output)["sent_total"]
        stack.wait_for_all()
        report = stack.verify()
        assert report["equal"], report
        assert stack.history_rows() == stack.sent, "a change is in history twice"
        assert report["lake_rows"] == report["source_items"]
    finally:
        for process in restarted:
            process.terminate()
            assert process.wait(timeout=60) == 0, "SIGTERM did not end it cleanly"


def restart(stack: Stack, name: str) -> "subprocess.Popen[bytes]":
    """End it as kill -9 does, then start the very command and environment it ran with."""
    process = psutil.Process(stack.facts["processes"][name]["pid"])
    command, environment, folder = process.cmdline(), process.environ(), process.cwd()
    os.kill(process.pid, signal.SIGKILL)
    wait_for(lambda: not runs(process.pid), lambda: f"{name} lives on")
    log = Path(stack.facts["processes"][name]["log"]).open("ab")  # noqa: SIM115 - the process keeps it
    return subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
