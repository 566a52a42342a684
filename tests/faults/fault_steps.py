"""What is done to the stack in a drill, what is looked for after it, and what heals it: the fault table's steps."""

import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import yaml
from deltalake import DeltaTable

from infra.local.ports import free_ports
from streaming_job.pipeline.lease import LEASE_PROPERTY
from streaming_job.pipeline.properties import read, written
from tests.faults.kinesis_proxy import Fault
from tests.support.broken_stack import BrokenStack
from tests.support.whole_stack import LAKESTREAM

Step = Callable[[BrokenStack], None]

DIED: Final = 1
STOPPED: Final = 3
_RNG: Final = random.Random(7)
_STATUS_UNWELL: Final = 3


def start_job(stack: BrokenStack) -> None:
    stack.job.start()


def nothing(_: BrokenStack) -> None:
    """It mends itself."""


def killed(name: str) -> Step:
    def kill(stack: BrokenStack) -> None:
        stack.write_some()
        stack.kill(name, _RNG)

    return kill


def ended(code: int, *words: str) -> Step:
    """The job is gone, with this exit code and one line that has these words."""

    def look(stack: BrokenStack) -> None:
        assert stack.job.exit_code() == code, stack.job.said()[-3000:]
        for word in (*words, " - "):
            assert word in stack.job.error_line, (word, stack.job.error_line)

    return look


def status_says_gone(name: str) -> Step:
    def look(stack: BrokenStack) -> None:
        status = stack.status()
        assert status.code == _STATUS_UNWELL
        assert [process["name"] for process in status.json["processes"] if not process["alive"]] == [name]
        assert "lakestream local restart" in status.err

    return look


def restarted(name: str) -> Step:
    def restart(stack: BrokenStack) -> None:
        assert stack.restarted() == [name]

    return restart


def counts(what: str, url: Callable[[BrokenStack], str], name: str) -> Step:
    def look(stack: BrokenStack) -> None:
        stack.wait(lambda: stack.metric(url(stack), name) > 0, what, within_s=60)

    return look


# --- the steps that are more than a line ------------------------------------------------------------------------------


def reads_fail(stack: BrokenStack) -> None:
    stack.proxy.breaks(Fault("throttle", "GetRecords", 5), Fault("slow", "GetRecords", 2, 2.0), Fault("reset", times=2))
    stack.write_some()


def writes_fail(stack: BrokenStack) -> None:
    stack.proxy.breaks(
        *[Fault(kind, "PutRecords", 2) for kind in ("partial", "throttle", "internal", "reset", "partial")]
    )
    with stack.load(60, seed=3):
        stack.wait(lambda: stack.proxy.broken["partial"] >= 3, "calls of the bridge that fail in part", within_s=60)


def emulator_paused(stack: BrokenStack) -> None:
    stack.write_some()
    os.kill(stack.pid("emulator"), signal.SIGSTOP)


def stalled(stack: BrokenStack) -> None:
    stack.wait(lambda: stack.job.health()[0] == 503, "the job says that it is not well", within_s=60)
    assert "no batch committed" in stack.job.health()[1]
    # By which the page says so: tests/unit/test_dashboard_feed.py.
    assert stack.metric(f"{stack.job.url}/metrics", "lakestream_stalled_seconds") > 0


def emulator_goes_on(stack: BrokenStack) -> None:
    os.kill(stack.pid("emulator"), signal.SIGCONT)


def disk_full(stack: BrokenStack) -> None:
    stack.disk.fill()
    stack.write_some()


def disk_full_said(stack: BrokenStack) -> None:
    ended(DIED, "No space left on device")(stack)
    assert any("a full disk stops the job" in finding for finding in stack.doctor())


def room_made(stack: BrokenStack) -> None:
    stack.disk.make_room()
    stack.job.start()


def disk_read_only(stack: BrokenStack) -> None:
    stack.disk.allow_writing(allowed=False)
    stack.write_some()


def read_only_said(stack: BrokenStack) -> None:
    ended(DIED, "Read-only file system")(stack)
    assert any("cannot be written to" in finding for finding in stack.doctor())


def disk_writable(stack: BrokenStack) -> None:
    stack.disk.allow_writing(allowed=True)
    stack.job.start()


def _last_offset(stack: BrokenStack) -> Path:
    offsets = stack.disk.path / "checkpoint" / "offsets"
    return max((file for file in offsets.iterdir() if file.name.isdigit()), key=lambda file: int(file.name))


def checkpoint_damaged(stack: BrokenStack) -> None:
    """Half of the last batch's offset, as a machine that lost its power leaves it."""
    stack.job.end()
    file = _last_offset(stack)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    stack.job.start()


def checkpoint_mended(stack: BrokenStack) -> None:
    """As the line says: the files it names are deleted."""
    named = re.search(r"delete (.*?): ", stack.job.error_line)
    assert named is not None
    for file in named[1].split(" and "):
        Path(file).unlink()
    stack.job.start()


def lease_taken(stack: BrokenStack) -> None:
    """By a job on another host, as it does when ours was away for longer than its lease."""
    table = DeltaTable(stack.table_path("current"))
    held = read(table.metadata().configuration[LEASE_PROPERTY])
    assert held is not None
    theirs = {"name": "another job", "host": "elsewhere", "pid": 7, "token": held["token"] + 1}
    until_ms = time.time_ns() // 1_000_000 + 5_000
    taken = {LEASE_PROPERTY: written({**theirs, "until_ms": until_ms})}
    table.alter.set_table_properties(taken, raise_if_not_exists=False)
    stack.write_some()


def second_job(stack: BrokenStack) -> None:
    """On the very tables and checkpoint, with a page of its own."""
    (port,) = free_ports(1)
    content: dict[str, Any] = {**stack.job.settings, "http": {**stack.job.settings["http"], "port": port}}
    file = stack.home.path / "second-job.yaml"
    file.write_text(yaml.safe_dump(content))
    done = subprocess.run(
        [LAKESTREAM, "run", "--config", file],
        env=stack.job.env,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    stack.notes["second job"] = (done.returncode, done.stderr.strip().splitlines()[-1])


def second_refused(stack: BrokenStack) -> None:
    code, line = stack.notes["second job"]
    assert code == STOPPED
    assert line.startswith("error: ")
    assert f"process {stack.job.pid}" in line
    assert "stop that job" in line
