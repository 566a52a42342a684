"""The lease on a real Delta table, with two writers and a clock that tests move."""

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pyarrow as pa
import pytest
from pyspark.sql.types import StringType, StructType

from streaming_job.errors import LeaseHeldError, LeaseLostError
from streaming_job.pipeline.lease import Lease, Owner, read_holding
from streaming_job.pipeline.locations import Location
from streaming_job.pipeline.merge import Merge, TableSpec, Update
from streaming_job.pipeline.merge_rust import RustTable

HERE, OTHER_HOST = Owner("job a", socket.gethostname(), os.getpid()), Owner("job b", "elsewhere", 4711)
COLUMNS = StructType().add("_key", StringType()).add("_seq", StringType())
MERGE = Merge(match=("_key",), insert=("_key", "_seq"), updates=(Update("_seq", ("_key", "_seq")),))
ROW = pa.table({"_key": ["k"], "_seq": ["1"]})


class Clock:
    def __init__(self) -> None:
        self.now_ms = 1_000_000

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "current")


def writer(path: str, owner: Owner, clock: Clock) -> tuple[RustTable, Lease]:
    """A writer as a process of its own would have it: its own handle of the table."""
    table = RustTable(TableSpec(Location(path=path), COLUMNS))
    return table, Lease(table, owner, duration_ms=60_000, clock=clock)


def test_a_second_writer_is_refused_and_told_who_holds_the_table(path: str, clock: Clock) -> None:
    writer(path, OTHER_HOST, clock)[1].acquire()
    with pytest.raises(LeaseHeldError, match=r"one writer at a time.*job b \(host elsewhere, process 4711\)"):
        writer(path, HERE, clock)[1].acquire()


def test_a_lease_that_ended_is_taken_over_under_a_higher_token(path: str, clock: Clock) -> None:
    writer(path, OTHER_HOST, clock)[1].acquire()
    clock.now_ms += 60_000
    _, second = writer(path, HERE, clock)
    second.acquire()
    assert second.token == 2


def test_a_lease_that_was_released_is_free_at_once(path: str, clock: Clock) -> None:
    _, first = writer(path, OTHER_HOST, clock)
    first.acquire()
    first.release()
    writer(path, HERE, clock)[1].acquire()


def test_a_lease_that_cannot_be_given_back_hides_no_other_reason_to_end(
    path: str, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The table is gone from the disk, as it seems when that is full or read-only."""
    _, first = writer(path, HERE, clock)
    first.acquire()
    shutil.rmtree(path)
    first.release()
    assert first.token is None
    assert "lease not given back" in caplog.text


def test_a_crashed_holder_on_this_host_is_not_waited_for(path: str, clock: Clock) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    writer(path, Owner("job a", socket.gethostname(), gone.pid), clock)[1].acquire()
    _, second = writer(path, HERE, clock)
    second.acquire()
    assert second.token == 2


def test_who_lost_the_lease_commits_nothing_more_and_says_who_took_it(path: str, clock: Clock) -> None:
    first_table, first = writer(path, OTHER_HOST, clock)
    first.acquire()
    clock.now_ms += 60_000
    second_table, second = writer(path, HERE, clock)
    second.acquire()
    with pytest.raises(LeaseLostError, match=r"token 1\) is lost: job a .* has it now \(token 2\)"):
        first_table.merge(ROW, MERGE, first.check)
    second_table.merge(ROW, MERGE, second.check)
    assert second_table.read(["_key"]).num_rows == 1


def test_a_merge_in_flight_while_the_lease_changes_hands_fails_in_the_log(path: str, clock: Clock) -> None:
    """The takeover comes between the token's check and the commit: the check cannot see it, Delta's log does."""
    first_table, first = writer(path, OTHER_HOST, clock)
    first.acquire()
    clock.now_ms += 60_000
    _, second = writer(path, HERE, clock)

    def taken_over_right_after() -> None:
        first.check()
        if second.token is None:
            second.acquire()

    with pytest.raises(LeaseLostError):
        first_table.merge(ROW, MERGE, taken_over_right_after)
    first_table.refresh()
    assert first_table.read(["_key"]).num_rows == 0


def test_a_held_lease_is_renewed_when_half_its_time_is_over(path: str, clock: Clock) -> None:
    table, lease = writer(path, OTHER_HOST, clock)
    lease.acquire()
    version = table.version()
    clock.now_ms += 29_000
    lease.renew_when_due()
    assert table.version() == version
    clock.now_ms += 1_000
    lease.renew_when_due()
    holding = read_holding(table)
    assert holding is not None
    assert holding.until_ms == clock.now_ms + 60_000


def test_a_race_for_a_free_lease_has_one_winner(path: str, clock: Clock) -> None:
    """Both see it free; the second commit meets the first one's metadata, looks again, and is refused."""
    first_table, first = writer(path, OTHER_HOST, clock)
    _, second = writer(path, HERE, clock)
    seen_free = read_holding(first_table)
    assert seen_free is None
    second.acquire()
    with pytest.raises(LeaseHeldError, match="job a"):
        first.acquire()
