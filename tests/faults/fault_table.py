"""Every fault we break the system with, as one table: what breaks, what a person is told, who mends it, where it runs.

ARCHITECTURE.md has the same rows, and a test holds the two together. A new fault is a new row; where it needs the whole
stack and a job, it brings its three steps and runs in `test_fault_table.py`, one after the other on one stack.
"""

import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
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

_RNG: Final = random.Random(7)
_DIED: Final = 1
_STOPPED: Final = 3
_STATUS_UNWELL: Final = 3


@dataclass(frozen=True, kw_only=True)
class Drill:
    """`report` looks for what the row says and fails where it is not said; `heal` does what the row says mends it."""

    break_: Step
    report: Step
    heal: Step
    needs_small_disk: bool = False


@dataclass(frozen=True)
class Row:
    fault: str
    told: str
    mended: str
    held_by: str
    """The test it runs in, `path::name`; rows with a drill run in `HERE`."""
    drill: Drill | None = None


HERE: Final = "tests/faults/test_fault_table.py::test_what_is_broken_is_said_and_healed_and_every_change_arrives_once"


def _start_job(stack: BrokenStack) -> None:
    stack.job.start()


def _nothing(_: BrokenStack) -> None:
    """It mends itself."""


def _killed(name: str) -> Step:
    def kill(stack: BrokenStack) -> None:
        stack.write_some()
        stack.kill(name, _RNG)

    return kill


def _ended(code: int, *words: str) -> Step:
    """The job is gone, with this exit code and one line that has these words."""

    def look(stack: BrokenStack) -> None:
        assert stack.job.exit_code() == code, stack.job.said()[-3000:]
        for word in (*words, " - "):
            assert word in stack.job.error_line, (word, stack.job.error_line)

    return look


def _status_says_gone(name: str) -> Step:
    def look(stack: BrokenStack) -> None:
        status = stack.status()
        assert status.code == _STATUS_UNWELL
        assert [process["name"] for process in status.json["processes"] if not process["alive"]] == [name]
        assert "lakestream local restart" in status.err

    return look


def _restarted(name: str) -> Step:
    def restart(stack: BrokenStack) -> None:
        assert stack.restarted() == [name]

    return restart


def _worker_killed(name: str) -> Drill:
    return Drill(break_=_killed(name), report=_status_says_gone(name), heal=_restarted(name))


def _counts(what: str, url: Callable[[BrokenStack], str], name: str) -> Step:
    def look(stack: BrokenStack) -> None:
        stack.wait(lambda: stack.metric(url(stack), name) > 0, what, within_s=60)

    return look


# --- the steps that are more than a line ------------------------------------------------------------------------------


def _reads_fail(stack: BrokenStack) -> None:
    stack.proxy.breaks(Fault("throttle", "GetRecords", 5), Fault("slow", "GetRecords", 2, 2.0), Fault("reset", times=2))
    stack.write_some()


def _writes_fail(stack: BrokenStack) -> None:
    stack.proxy.breaks(
        *[Fault(kind, "PutRecords", 2) for kind in ("partial", "throttle", "internal", "reset", "partial")]
    )
    with stack.load(60, seed=3):
        stack.wait(lambda: stack.proxy.broken["partial"] >= 3, "calls of the bridge that fail in part", within_s=60)


def _emulator_paused(stack: BrokenStack) -> None:
    stack.write_some()
    os.kill(stack.pid("emulator"), signal.SIGSTOP)


def _stalled(stack: BrokenStack) -> None:
    stack.wait(lambda: stack.job.health()[0] == 503, "the job says that it is not well", within_s=60)
    assert "no batch committed" in stack.job.health()[1]
    # By which the page says so: tests/unit/test_dashboard_feed.py.
    assert stack.metric(f"{stack.job.url}/metrics", "lakestream_stalled_seconds") > 0


def _emulator_goes_on(stack: BrokenStack) -> None:
    os.kill(stack.pid("emulator"), signal.SIGCONT)


def _disk_full(stack: BrokenStack) -> None:
    stack.disk.fill()
    stack.write_some()


def _disk_full_said(stack: BrokenStack) -> None:
    _ended(_DIED, "No space left on device")(stack)
    assert any("a full disk stops the job" in finding for finding in stack.doctor())


def _room_made(stack: BrokenStack) -> None:
    stack.disk.make_room()
    stack.job.start()


def _disk_read_only(stack: BrokenStack) -> None:
    stack.disk.allow_writing(allowed=False)
    stack.write_some()


def _read_only_said(stack: BrokenStack) -> None:
    _ended(_DIED, "Read-only file system")(stack)
    assert any("cannot be written to" in finding for finding in stack.doctor())


def _disk_writable(stack: BrokenStack) -> None:
    stack.disk.allow_writing(allowed=True)
    stack.job.start()


def _last_offset(stack: BrokenStack) -> Path:
    offsets = stack.disk.path / "checkpoint" / "offsets"
    return max((file for file in offsets.iterdir() if file.name.isdigit()), key=lambda file: int(file.name))


def _checkpoint_damaged(stack: BrokenStack) -> None:
    """Half of the last batch's offset, as a machine that lost its power leaves it."""
    stack.job.end()
    file = _last_offset(stack)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    stack.job.start()


def _checkpoint_mended(stack: BrokenStack) -> None:
    """As the line says: the files it names are deleted."""
    named = re.search(r"delete (.*?): ", stack.job.error_line)
    assert named is not None
    for file in named[1].split(" and "):
        Path(file).unlink()
    stack.job.start()


def _lease_taken(stack: BrokenStack) -> None:
    """By a job on another host, as it does when ours was away for longer than its lease."""
    table = DeltaTable(stack.table_path("current"))
    held = read(table.metadata().configuration[LEASE_PROPERTY])
    assert held is not None
    theirs = {"name": "another job", "host": "elsewhere", "pid": 7, "token": held["token"] + 1}
    until_ms = time.time_ns() // 1_000_000 + 5_000
    taken = {LEASE_PROPERTY: written({**theirs, "until_ms": until_ms})}
    table.alter.set_table_properties(taken, raise_if_not_exists=False)
    stack.write_some()


def _second_job(stack: BrokenStack) -> None:
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


def _second_refused(stack: BrokenStack) -> None:
    code, line = stack.notes["second job"]
    assert code == _STOPPED
    assert line.startswith("error: ")
    assert f"process {stack.job.pid}" in line
    assert "stop that job" in line


# --- the table --------------------------------------------------------------------------------------------------------

ROWS: Final = (
    Row(
        "`kill -9` of the mapping",
        "`local status`: gone, exit code 3, how to start it again",
        "`local restart`; the batch in hand comes again",
        HERE,
        _worker_killed("mapping"),
    ),
    Row(
        "`kill -9` of the bridge in the mapping",
        "`lakestream_mapping_invocations`, outcome `error`; the mapping's log names the process's end",
        "the mapping starts another and brings the batch again",
        HERE,
        Drill(
            break_=_killed("bridge"),
            report=_counts(
                "invocations that failed", lambda s: s.mapping_metrics, "lakestream_mapping_invocations_total"
            ),
            heal=_nothing,
        ),
    ),
    Row(
        "`kill -9` of the delivery",
        "`local status`: gone, exit code 3, how to start it again",
        "`local restart`; each record in exactly one object",
        HERE,
        _worker_killed("delivery"),
    ),
    Row(
        "`kill -9` of the expiries",
        "`local status`: gone, exit code 3, how to start it again",
        "`local restart`",
        HERE,
        _worker_killed("expiries"),
    ),
    Row(
        "`kill -9` of the dashboard",
        "the open page: its server does not answer, since when",
        "`local restart`; the page comes back by itself",
        "tests/browser/test_page.py::test_a_page_that_lost_its_server_says_so_and_comes_back_by_itself",
    ),
    Row(
        "`kill -9` of the job",
        "`/healthz` does not answer; `local status`: gone; the page: the job is stopped",
        "started again, it goes on from its checkpoint",
        "tests/e2e/test_whole_path.py::"
        "test_every_change_arrives_once_and_in_order_though_the_job_and_the_mapping_are_killed_in_the_middle",
    ),
    Row(
        "`kill -9` of the job's JVM",
        "exit code 1, one line: Spark's JVM was killed, by what",
        "started again, it goes on from its checkpoint",
        HERE,
        Drill(break_=_killed("jvm"), report=_ended(_DIED, "Spark's JVM", "was killed by SIGKILL"), heal=_start_job),
    ),
    Row(
        "`kill -9` of the process that reads the stream",
        "exit code 1, one line: it ended without a word",
        "started again, it goes on from its checkpoint",
        HERE,
        Drill(
            break_=_killed("stream reader"),
            report=_ended(_DIED, "the process that reads the stream ended without a word"),
            heal=_start_job,
        ),
    ),
    Row(
        "the job's JVM runs out of memory",
        "exit code 1, one line: it ran out of memory, which settings to change",
        "started again, with more memory or smaller batches",
        "tests/faults/test_fault_table.py::test_a_jvm_that_runs_out_of_memory_ends_and_is_said_to_have",
    ),
    Row(
        "the emulator paused for longer than `unhealthy_after_s`",
        "`/healthz` 503 with since when, `lakestream_stalled_seconds`; the page: the job is stalled; after "
        "`maxRetryDuration` the job ends and says which call had no answer",
        "by itself when it goes on; a job that ended is started again",
        HERE,
        Drill(break_=_emulator_paused, report=_stalled, heal=_emulator_goes_on),
    ),
    Row(
        "Kinesis throttles reads, answers late, cuts connections",
        "`lakestream_source_throttles`, `lakestream_source_retries`",
        "by itself, within `maxRetryDuration`",
        HERE,
        Drill(
            break_=_reads_fail,
            report=_counts("throttled reads", lambda s: f"{s.job.url}/metrics", "lakestream_source_throttles_total"),
            heal=_nothing,
        ),
    ),
    Row(
        "PutRecords fails in part, throttles, answers 500, loses its connection",
        "`lakestream_bridge_records_resent`",
        "by itself: what failed goes again with every later record of its keys",
        HERE,
        Drill(
            break_=_writes_fail,
            report=_counts("records sent again", lambda s: s.mapping_metrics, "lakestream_bridge_records_resent_total"),
            heal=_nothing,
        ),
    ),
    Row(
        "the disk of lake and checkpoint is full",
        "exit code 1, one line: no space left, and where; `doctor`: how much is free",
        "room made, started again",
        HERE,
        Drill(break_=_disk_full, report=_disk_full_said, heal=_room_made, needs_small_disk=True),
    ),
    Row(
        "lake and checkpoint become read-only",
        "exit code 1, one line: read-only, and what; `doctor`: cannot be written to",
        "made writable, started again",
        HERE,
        Drill(break_=_disk_read_only, report=_read_only_said, heal=_disk_writable, needs_small_disk=True),
    ),
    Row(
        "a file of the checkpoint is damaged",
        "exit code 3, one line before Spark starts: the file, and which to delete",
        "those deleted, started again: the batch is run again, which changes nothing",
        HERE,
        Drill(
            break_=_checkpoint_damaged,
            report=_ended(_STOPPED, "is damaged", "offsets/"),
            heal=_checkpoint_mended,
        ),
    ),
    Row(
        "another writer took the lease",
        "exit code 3, one line: who has it now, nothing was committed after that",
        "the other one stopped, started again",
        HERE,
        Drill(
            break_=_lease_taken,
            report=_ended(_STOPPED, "is lost", "another job (host elsewhere, process 7)"),
            heal=_start_job,
        ),
    ),
    Row(
        "a second job on the same tables and checkpoint",
        "exit code 3, one line: who holds them, by host and process; the first goes on",
        "none is needed",
        HERE,
        Drill(break_=_second_job, report=_second_refused, heal=_nothing),
    ),
    Row(
        "a schema conflict: a rule that the table's column cannot serve",
        "`lakestream_parked`, the reason in the table `parked`; other tables go on",
        "the rule mended, what is parked is drained in order",
        "tests/faults/test_pipeline_parking.py::"
        "test_a_bad_rule_parks_its_table_and_a_job_with_the_mended_rule_drains_it",
    ),
    Row(
        "a damaged object in the archive",
        "one reject with its name and reason; `archive query` names it",
        "the lines before the damage are read; delivered anew, it is read whole",
        "tests/faults/test_files_spark.py::test_an_object_that_is_no_archive_gives_rejects_and_the_others_go_on",
    ),
    Row(
        "a clock that is set back",
        "hops below zero are counted; `doctor`: how far the clock is off",
        "none is needed: order is by `_seq`, no shard waits for the clock",
        "tests/unit/test_kinesis_tail.py::test_a_clock_that_was_set_back_does_not_keep_a_shard_waiting",
    ),
)
