"""Every fault we break the system with, as one table: what breaks, what a person is told, who mends it, where it runs.

ARCHITECTURE.md has the same rows, and a test holds the two together. A new fault is a new row; where it needs the whole
stack and a job, it brings three steps (`fault_steps.py`) and runs in `test_fault_table.py`, one after the other on one
stack.
"""

from dataclasses import dataclass
from typing import Final

from tests.faults.fault_steps import (
    DIED,
    STOPPED,
    Step,
    checkpoint_damaged,
    checkpoint_mended,
    counts,
    disk_full,
    disk_full_said,
    disk_read_only,
    disk_writable,
    emulator_goes_on,
    emulator_paused,
    ended,
    killed,
    lease_taken,
    nothing,
    read_only_said,
    reads_fail,
    restarted,
    room_made,
    second_job,
    second_refused,
    stalled,
    start_job,
    status_says_gone,
    writes_fail,
)


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


def _worker_killed(name: str) -> Drill:
    return Drill(break_=killed(name), report=status_says_gone(name), heal=restarted(name))


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
            break_=killed("bridge"),
            report=counts(
                "invocations that failed", lambda s: s.mapping_metrics, "lakestream_mapping_invocations_total"
            ),
            heal=nothing,
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
        Drill(break_=killed("jvm"), report=ended(DIED, "Spark's JVM", "was killed by SIGKILL"), heal=start_job),
    ),
    Row(
        "`kill -9` of the process that reads the stream",
        "exit code 1, one line: it ended without a word",
        "started again, it goes on from its checkpoint",
        HERE,
        Drill(
            break_=killed("stream reader"),
            report=ended(DIED, "the process that reads the stream ended without a word"),
            heal=start_job,
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
        Drill(break_=emulator_paused, report=stalled, heal=emulator_goes_on),
    ),
    Row(
        "Kinesis throttles reads, answers late, cuts connections",
        "`lakestream_source_throttles`, `lakestream_source_retries`",
        "by itself, within `maxRetryDuration`",
        HERE,
        Drill(
            break_=reads_fail,
            report=counts("throttled reads", lambda s: f"{s.job.url}/metrics", "lakestream_source_throttles_total"),
            heal=nothing,
        ),
    ),
    Row(
        "PutRecords fails in part, throttles, answers 500, loses its connection",
        "`lakestream_bridge_records_resent`",
        "by itself: what failed goes again with every later record of its keys",
        HERE,
        Drill(
            break_=writes_fail,
            report=counts("records sent again", lambda s: s.mapping_metrics, "lakestream_bridge_records_resent_total"),
            heal=nothing,
        ),
    ),
    Row(
        "the disk of lake and checkpoint is full",
        "exit code 1, one line: no space left, and where; `doctor`: how much is free",
        "room made, started again",
        HERE,
        Drill(break_=disk_full, report=disk_full_said, heal=room_made, needs_small_disk=True),
    ),
    Row(
        "lake and checkpoint become read-only",
        "exit code 1, one line: read-only, and what; `doctor`: cannot be written to",
        "made writable, started again",
        HERE,
        Drill(break_=disk_read_only, report=read_only_said, heal=disk_writable, needs_small_disk=True),
    ),
    Row(
        "a file of the checkpoint is damaged",
        "exit code 3, one line before Spark starts: the file, and which to delete",
        "those deleted, started again: the batch is run again, which changes nothing",
        HERE,
        Drill(
            break_=checkpoint_damaged,
            report=ended(STOPPED, "is damaged", "offsets/"),
            heal=checkpoint_mended,
        ),
    ),
    Row(
        "another writer took the lease",
        "exit code 3, one line: who has it now, nothing was committed after that",
        "the other one stopped, started again",
        HERE,
        Drill(
            break_=lease_taken,
            report=ended(STOPPED, "is lost", "another job (host elsewhere, process 7)"),
            heal=start_job,
        ),
    ),
    Row(
        "a second job on the same tables and checkpoint",
        "exit code 3, one line: who holds them, by host and process; the first goes on",
        "none is needed",
        HERE,
        Drill(break_=second_job, report=second_refused, heal=nothing),
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
