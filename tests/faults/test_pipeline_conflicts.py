"""Engine `spark` beside a writer nobody invited: what Delta's log refuses is tried again, and given up in the end."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError
from pyspark.sql import SparkSession
from pyspark.sql.types import StringType, StructType

from streaming_job.errors import CommitConflictError
from streaming_job.pipeline.locations import Location
from streaming_job.pipeline.merge import Merge, TableSpec, Update
from streaming_job.pipeline.merge_spark import SparkTable

pytestmark = pytest.mark.spark
COLUMNS = StructType().add("_key", StringType()).add("_seq", StringType())
MERGE = Merge(match=("_key",), insert=("_key", "_seq"), updates=(Update("_seq", ("_key", "_seq")),))
TRIES = 10


def row(key: str, seq: int) -> pa.Table:
    return pa.table({"_key": [key], "_seq": [f"{seq:04d}"]})


@pytest.fixture
def table(spark: SparkSession, lake: Path) -> SparkTable:
    """Both keys lie in one file: whoever writes the one rewrites what the other reads."""
    table = SparkTable(spark, TableSpec(Location(path=str(lake / "current")), COLUMNS))
    table.merge(pa.concat_tables([row("ours", 0), row("theirs", 0)]), MERGE)
    table.compact(target_bytes=1024 * 1024)
    return table


class Rival:
    """Another program: it rewrites its row by delta-rs while Spark works on a merge."""

    def __init__(self, spark: SparkSession, table: SparkTable, *, times: int) -> None:
        self._tracker = spark.sparkContext.statusTracker()
        self._path = str(table.location)
        self._left = times
        self._stop = threading.Event()
        self.commits = 0

    @contextmanager
    def at_work(self) -> Iterator[None]:
        thread = threading.Thread(target=self._work)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _work(self) -> None:
        while self._left and not self._stop.wait(0.001):
            if self._tracker.getActiveJobsIds():
                self._commit()

    def _commit(self) -> None:
        version = {"_seq": f"{self.commits + 1:04d}"}
        try:
            DeltaTable(self._path).update(new_values=version, predicate="_key = 'theirs'")
        except CommitFailedError:
            return
        self.commits += 1
        self._left -= 1


def counted(attempts: list[int]) -> Callable[[], None]:
    return lambda: attempts.append(1)


def seqs(table: SparkTable) -> dict[str, str]:
    return {found["_key"]: found["_seq"] for found in table.read(["_key", "_seq"]).to_pylist()}


def test_a_merge_that_met_a_conflicting_commit_is_tried_again_and_neither_is_lost(
    spark: SparkSession, table: SparkTable
) -> None:
    """The other's commits fall anywhere into the merge: sooner or later between what it read and its commit."""
    theirs = 0
    for number in range(1, TRIES + 1):
        attempts: list[int] = []
        rival = Rival(spark, table, times=2)
        rival.commits = theirs
        with rival.at_work():
            merged = table.merge(row("ours", number), MERGE, counted(attempts))
        theirs = rival.commits
        assert merged.updated == 1
        assert seqs(table) == {"ours": f"{number:04d}", "theirs": f"{theirs:04d}"}
        if len(attempts) > 1:
            return
    raise AssertionError(f"none of {TRIES} merges met a conflict")


def test_a_table_that_somebody_else_writes_without_end_is_given_up_with_who_and_what_to_do(
    spark: SparkSession, table: SparkTable
) -> None:
    attempts: list[int] = []
    with Rival(spark, table, times=10_000).at_work(), pytest.raises(CommitConflictError) as raised:
        table.merge(row("ours", 1), MERGE, counted(attempts))
    assert "5 commits in a row conflicted" in raised.value.what
    assert len(attempts) == 6
    assert "DESCRIBE HISTORY" in str(raised.value.hint)
