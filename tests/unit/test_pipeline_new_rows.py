"""Rows of new keys are there before the merge that a batch's other rows need, and their latency says so."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from envelopes import put, remove
from lake_rig import CrashAfter, KilledError, dead_process, table_config
from rig_without_spark import RigWithoutSpark

from streaming_job.pipeline.steps import Step


class CommitNotes:
    """Of each change the time from which it could be queried."""

    def __init__(self) -> None:
        self.by_key: dict[str, int] = {}

    def record(self, clocks: pa.Table, *, table: str, batch: str, batch_start_ms: int, commit_ms: int) -> None:
        del table, batch
        whole = pa.repeat(pa.scalar(commit_ms), clocks.num_rows)
        commits = clocks["commit_ms"] if "commit_ms" in clocks.column_names else whole
        assert all(batch_start_ms < at <= commit_ms for at in commits.to_pylist())
        self.by_key |= dict(zip(clocks["key"].to_pylist(), commits.to_pylist(), strict=True))


@pytest.fixture
def rig(tmp_path: Path) -> RigWithoutSpark:
    rig = RigWithoutSpark(tmp_path, table_config("things"))
    rig.run([put("a", 1, n=1), put("b", 1, n=1)])
    return rig


def commits(rig: RigWithoutSpark) -> list[tuple[str, int, int]]:
    """What wrote to `current` after the first batch, how many new rows, and how many in the place of others."""
    found: list[dict[str, Any]] = DeltaTable(str(rig.root / "things" / "current")).history()
    written = [each for each in reversed(found) if each["operation"] in {"WRITE", "MERGE"}]
    return [_said(each["operationParameters"], each["operationMetrics"]) for each in written][1:]


def _said(parameters: dict[str, str], metrics: dict[str, Any]) -> tuple[str, int, int]:
    added, replaced = (int(metrics.get(f"num_{what}_rows", 0)) for what in ("added", "replaced"))
    return parameters.get("mode", "Merge"), added, replaced


def rows(rig: RigWithoutSpark) -> dict[str, tuple[Any, ...]]:
    return {row["id"]: (row["n"], row["_deleted"]) for row in rig.rows("things/current")}


BATCH = [put("a", 2, n=2), put("c", 1, n=3), remove("b", 2), put("d", 1, n=4), put("d", 2, n=5)]
AFTER = {"a": (2.0, False), "b": (None, True), "c": (3.0, False), "d": (5.0, False)}


def test_new_keys_are_appended_first_and_can_be_queried_before_the_rest(rig: RigWithoutSpark) -> None:
    notes = rig.latency = CommitNotes()  # type: ignore[assignment]
    (report,) = rig.run(BATCH)
    table = report.tables["things"]
    assert rows(rig) == AFTER
    assert commits(rig) == [("Append", 2, 0), ("Append", 0, 2)]
    assert (table.current_inserted, table.current_updated) == (2, 2)
    new, rest = ({notes.by_key[f'{{"id":"{key}"}}'] for key in keys} for keys in ("cd", "ab"))
    assert len(new) == len(rest) == 1
    assert max(new) < min(rest)


@pytest.mark.parametrize(
    ("batch", "counts"),
    [([put("c", 1, n=1), put("d", 1, n=1)], (2, 0)), ([put("a", 2, n=1), remove("b", 2)], (0, 2))],
    ids=["all new", "none new"],
)
def test_one_commit_does_where_all_or_none_are_new(
    rig: RigWithoutSpark, batch: list[Any], counts: tuple[int, int]
) -> None:
    rig.run(batch)
    assert commits(rig) == [("Append", *counts)]


def test_a_batch_of_a_strict_table_of_which_nothing_fits_is_rejected_and_parks_nothing(tmp_path: Path) -> None:
    strict = RigWithoutSpark(tmp_path, table_config("things", strict=True, columns={"n": "bigint"}))
    strict.run([put("a", 1, n=1)])
    (report,) = strict.run([put("a", 2, n="no number"), put("b", 1, n="nor this")])
    assert report.tables["things"].failure is None
    assert (report.rejects, report.tables["things"].parked) == (2, 0)
    assert rows(strict) == {"a": (1, False)}


def test_a_crash_between_the_two_commits_leaves_nothing_twice(rig: RigWithoutSpark) -> None:
    batch = rig.frame(BATCH)
    with pytest.raises(KilledError):
        rig.pipeline(CrashAfter(Step.NEW_ROWS), dead_process()).__enter__().process_batch(batch, 1)
    assert rows(rig).keys() == {"a", "b", "c", "d"}
    with rig.pipeline() as pipeline:
        pipeline.process_batch(batch, 1)
    assert rows(rig) == AFTER
    assert len(rig.rows("things/current")) == len(AFTER)
