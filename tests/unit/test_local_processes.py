"""Processes of the embedded stack: a pid alone names nobody, and nothing a stack started outlives its end."""

import os
import signal
import sys
import textwrap
from pathlib import Path

import psutil
import pytest
from local_workers import until

from infra.local import processes
from infra.local.processes import Identity


def start(tmp_path: Path, code: str) -> Identity:
    """A Python process that has written `ready` by the time this returns."""
    log = tmp_path / "log"
    identity = processes.start(
        "child", [sys.executable, "-uc", textwrap.dedent(code)], env=dict(os.environ), log=log, cwd=tmp_path
    )
    until(lambda: "ready" in log.read_text(), "the child is ready")
    return identity


SLEEP = "import time; print('ready'); time.sleep(600)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready'); time.sleep(600)"


def test_a_process_that_obeys_ends_in_time(tmp_path: Path) -> None:
    child = start(tmp_path, SLEEP)
    assert processes.stop(child, within_s=20)
    assert not processes.is_alive(child)


def test_a_process_that_does_not_obey_is_killed_and_said_so(tmp_path: Path) -> None:
    child = start(tmp_path, DEAF)
    assert not processes.stop(child, within_s=0.2)
    until(lambda: not processes.is_alive(child), "the child has ended")


def test_what_a_process_started_ends_with_it(tmp_path: Path) -> None:
    """The child leaves a grandchild behind in its session and ends at once."""
    child = start(
        tmp_path,
        f"""
        import subprocess, sys
        print(subprocess.Popen([sys.executable, "-c", {DEAF!r}]).pid, "is the grandchild, ready")
        """,
    )
    grandchild = psutil.Process(int(Path(child.log).read_text().split(" is the grandchild")[0].split()[-1]))
    until(lambda: not processes.is_alive(child), "the child has ended")
    processes.stop(child, within_s=20)
    until(
        lambda: not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE, "the grandchild has ended"
    )


def test_a_stranger_with_the_pid_is_never_touched(tmp_path: Path) -> None:
    """The same pid, which is its session's too, with another start time: what a reused pid looks like."""
    stranger = start(tmp_path, SLEEP)
    remembered = Identity(name="job", pid=stranger.pid, started_s=stranger.started_s - 60, log=stranger.log)
    try:
        assert not processes.is_alive(remembered)
        assert processes.stop(remembered, within_s=5)
        with pytest.raises(psutil.TimeoutExpired):
            psutil.Process(stranger.pid).wait(0.5)
    finally:
        processes.stop(stranger, within_s=5)


def test_a_process_whose_exit_nobody_read_counts_as_ended(tmp_path: Path) -> None:
    child = start(tmp_path, SLEEP)
    os.kill(child.pid, signal.SIGKILL)
    until(lambda: not processes.is_alive(child), "the child has ended")
    assert psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE
    os.waitpid(child.pid, 0)


def test_an_identity_survives_being_written_down(tmp_path: Path) -> None:
    child = start(tmp_path, SLEEP)
    try:
        again = Identity.of_json("child", child.as_json())
        assert again == child
        assert processes.is_alive(again)
    finally:
        processes.stop(child, within_s=5)


@pytest.mark.parametrize(("text", "said"), [("", "empty log"), ("a\n\n b \nc\n", "b | c")])
def test_a_log_is_quoted_on_one_line(tmp_path: Path, text: str, said: str) -> None:
    log = tmp_path / "log"
    log.write_text(text)
    assert processes.last_lines(log, 2) == said


def test_a_log_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    assert processes.last_lines(tmp_path / "none") == "no log"
