"""A row that is there is never said to be lacking, whatever shares its hash, was let go of, or is written by others."""

from pathlib import Path

import pyarrow as pa
import pytest
from envelopes import DAY_MS
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming_job.pipeline import history, recent_rows
from streaming_job.pipeline.changes import SCHEMA
from streaming_job.pipeline.locations import Location
from streaming_job.pipeline.merge import no_guard
from streaming_job.pipeline.merge_rust import RustTable
from streaming_job.pipeline.recent_rows import RecentRows

ROWS = st.tuples(st.integers(0, 40), st.integers(0, 600_000))
"""A number that stands for a key, and the row's time."""


@settings(deadline=None)
@given(st.lists(st.lists(ROWS, max_size=8), max_size=20), st.integers(0, 300_000), st.sampled_from([1, 5, 1000]))
def test_a_row_that_is_there_is_never_lacking(batches: list[list[tuple[int, int]]], since_ms: int, hashes: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recent_rows, "_ROWS_MAX", 12)
        recent, there = RecentRows(since_ms), set[tuple[int, int]]()
        for batch in batches:
            numbers, times = [row[0] % hashes for row in batch], [row[1] for row in batch]
            if recent.lacks(numbers, times):
                assert there.isdisjoint(batch)
                assert all(time >= since_ms for time in times)
            recent.add(numbers, times)
            there.update(batch)
            assert len(recent) <= 12


def changes(*rows: tuple[str, int, int], op: str = "MODIFY") -> pa.Table:
    """Keys, sequence numbers and times of creation."""
    return pa.Table.from_pylist(
        [
            {"table": "t", "op": op, "key": key, "change_seq": f"20260101000000000-{seq:040d}", "created_ms": at}
            for key, seq, at in rows
        ],
        schema=SCHEMA,
    )


def opened(folder: Path) -> RustTable:
    return RustTable(history.spec(Location(path=str(folder / "history")), {}))


def write(table: RustTable, rows: pa.Table) -> int:
    return history.write(table, rows, DAY_MS, no_guard)


def operations(table: RustTable) -> list[str]:
    return [each["operation"] for each in reversed(table._table.history())][1:]


def test_new_changes_are_appended_without_a_merge_and_those_that_come_again_are_not_written(tmp_path: Path) -> None:
    table = opened(tmp_path)
    first, second = changes(("a", 1, DAY_MS), ("b", 1, DAY_MS)), changes(("a", 2, DAY_MS + 1))
    assert [write(table, first), write(table, second)] == [2, 1]
    assert operations(table) == ["WRITE", "WRITE"]
    assert write(table, pa.concat_tables([first, second, changes(("c", 1, DAY_MS))])) == 1
    assert operations(table)[-1] == "MERGE"
    assert table.count("true") == 4


def test_what_was_written_before_a_restart_is_known_after_it_and_older_changes_are_looked_for(tmp_path: Path) -> None:
    long_ago = DAY_MS - 2 * recent_rows.WINDOW_MS
    assert write(opened(tmp_path), changes(("a", 1, long_ago), ("b", 1, DAY_MS))) == 2
    table = opened(tmp_path)
    assert write(table, changes(("b", 1, DAY_MS), ("b", 2, DAY_MS))) == 1
    assert write(table, changes(("a", 1, long_ago))) == 0
    assert write(table, changes(("b", 3, DAY_MS + 5))) == 1
    assert operations(table) == ["WRITE", "MERGE", "WRITE"], "a merge that finds nothing to do is no commit"


def test_a_scanned_row_is_looked_for_whenever_it_was_scanned(tmp_path: Path) -> None:
    table = opened(tmp_path)
    assert write(table, changes(("a", 1, DAY_MS), op="SNAPSHOT")) == 1
    assert write(table, changes(("a", 1, DAY_MS + 60_000), op="SNAPSHOT")) == 0


def test_a_change_that_came_in_a_batch_with_scanned_rows_is_known_when_it_comes_again(tmp_path: Path) -> None:
    """As where one job reads the objects of both."""
    table = opened(tmp_path)
    change, undated = changes(("a", 1, DAY_MS)), changes(("u", 1, DAY_MS))
    undated = undated.set_column(undated.column_names.index("created_ms"), "created_ms", pa.nulls(1, pa.int64()))
    assert write(table, pa.concat_tables([change, changes(("s", 0, DAY_MS), op="SNAPSHOT"), undated])) == 3
    assert operations(table) == ["WRITE", "MERGE"]
    assert [write(table, again) for again in (change, undated)] == [0, 0]
    assert table.count("true") == 3


def test_of_two_writers_with_the_same_changes_the_second_writes_none_wherever_the_first_committed(
    tmp_path: Path,
) -> None:
    """The guard is called on a fresh view just before the commit: there the other one gets in first."""
    ours, theirs = opened(tmp_path), opened(tmp_path)
    rows = changes(("a", 1, DAY_MS), ("b", 1, DAY_MS))
    turns = iter([True])

    def overtaken() -> None:
        if next(turns, False):
            assert write(theirs, rows) == 2

    assert history.write(ours, rows, DAY_MS, overtaken) == 0
    assert ours.count("true") == 2
