"""The log of a table that is committed to every second: looked at no more than needed, and tidied all the same."""

import os
from pathlib import Path

from deltalake import DeltaTable
from pyspark.sql.types import LongType, StringType, StructType

from streaming_job.pipeline.arrow import table as arrow_table
from streaming_job.pipeline.locations import Location
from streaming_job.pipeline.merge import Merge, TableSpec
from streaming_job.pipeline.merge_rust import RustTable, arrow_schema
from streaming_job.pipeline.rust_log import LogFolder

COLUMNS = StructType().add("_key", StringType()).add("n", LongType())
MERGE = Merge(match=("_key",), insert=COLUMNS.names, updates=())
LOG = {"delta.checkpointInterval": "10", "delta.logRetentionDuration": "interval 1 days"}
DAYS_S = 3 * 86_400


def opened(folder: Path) -> RustTable:
    return RustTable(TableSpec(Location(path=str(folder)), COLUMNS, properties=LOG))


def commits(table: RustTable, *numbers: int) -> None:
    for number in numbers:
        table.merge(arrow_table({"_key": [f"k{number}"], "n": [number]}, arrow_schema(COLUMNS)), MERGE)


def versions(folder: Path) -> list[int]:
    return sorted(int(file.stem) for file in (folder / "_delta_log").glob("*.json"))


def test_what_is_too_old_of_a_log_goes_with_a_checkpoint(tmp_path: Path) -> None:
    """Eleven commits that are days old, then as many as it takes to the next checkpoints."""
    folder = tmp_path / "t"
    table = opened(folder)
    commits(table, *range(11))
    for file in (folder / "_delta_log").iterdir():
        was = file.stat().st_mtime - DAYS_S
        os.utime(file, (was, was))
    commits(table, *range(11, 32))
    assert versions(folder)[0] >= 9, "a table needs what follows its first checkpoint"
    assert DeltaTable(str(folder)).count() == table.count("true") == 32


def test_another_writers_commit_is_seen_though_the_log_is_not_listed(tmp_path: Path) -> None:
    folder = tmp_path / "t"
    one, other = opened(folder), opened(folder)
    commits(one, 1)
    commits(other, 2)
    one.refresh()
    assert one.count("true") == 2


def test_a_log_on_a_disk_is_listed_only_when_its_next_version_is_there_or_it_was_long_ago(tmp_path: Path) -> None:
    at = 0.0
    folder = tmp_path / "t"
    commits(opened(folder), 1)
    log = LogFolder(str(folder), lambda: at)
    assert log.may_have_grown(0)
    assert not log.may_have_grown(1)
    at = 601.0
    assert log.may_have_grown(1)
    assert not log.may_have_grown(1)


def test_a_log_in_a_bucket_is_always_asked() -> None:
    assert LogFolder("s3://bucket/t").may_have_grown(1)
