"""A table rebuilt beside the old one: both get every change, readers see one or the other, crashes are mended."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from envelopes import DAY_MS, Change, collected, put, remove
from lake_rig import CrashAfter, KilledError, dead_process, table_config
from lanes_rig import LanesRig, while_waiting
from pyspark.sql.types import StructType

from config.tables import TableConfig
from streaming_job.errors import HalfATableError
from streaming_job.pipeline import current
from streaming_job.pipeline.lane import TableReport
from streaming_job.pipeline.lease import Owner, holder_of
from streaming_job.pipeline.merge import LakeTable, TableSpec
from streaming_job.pipeline.opening import current_properties
from streaming_job.pipeline.order import UNPROVEN_PROPERTY
from streaming_job.pipeline.properties import read
from streaming_job.pipeline.rebuild import REBUILD_PROPERTY, Rebuild, State
from streaming_job.pipeline.requests import MAINTAIN, MAINTAINED, REBUILD, ask
from streaming_job.pipeline.steps import Step
from streaming_job.pipeline.table_lanes import TableLanes

OLD, NEW = "things/current", "things/rebuilt"
STATE = ("_key", "_seq", "_deleted", "n")
NUMBER = 1_793_600_000_000


class RebuildRig(LanesRig):
    """What the command does to a table that is to be rebuilt, a step at a time."""

    def begin(self, rules: TableConfig | None = None, *, since_ms: int | None = None) -> None:
        lake = (rules or self.config).lake
        rebuild = Rebuild(NUMBER, State.FILLING, "snapshot", lake.model_dump(mode="json", by_alias=True))
        more = {current.SCANNED_PROPERTY: str(since_ms)} if since_ms is not None else {}
        self.tables.open(lake.engine, current.spec(self.places.rebuilt, StructType(), rebuild.as_properties() | more))

    def is_now(self, state: State) -> None:
        table = self.table(NEW)
        rebuild = Rebuild.of(table.properties())
        assert rebuild is not None
        replace(rebuild, state=state).keep(table)

    def state(self) -> State:
        rebuild = Rebuild.of(self.tables.properties(self.places.rebuilt))
        assert rebuild is not None
        return rebuild.state

    def table(self, place: str) -> LakeTable:
        found = {OLD: self.places.current, NEW: self.places.rebuilt, "things/history": self.places.history}[place]
        return self.tables.open("rust", TableSpec(found, StructType(), ("_day",) if "history" in place else ()))

    def state_of(self, place: str) -> list[tuple[str, bool, float | None]]:
        return [(row["_seq"], row["_deleted"], row["n"]) for row in self.rows(place, *STATE)]

    def holder(self, place: str) -> Owner | None:
        return holder_of(self.table(place).properties(), self.clock())


def scanned(key: str, **item: Any) -> Change:
    return Change({"id": key}, 0, "SNAPSHOT", new={"id": key, **item}, created_ms=DAY_MS + 7_200_000)


def write(lanes: TableLanes, changes: Sequence[Change]) -> TableReport:
    return lanes.run(collected(changes))


@pytest.fixture
def rig(lake: Path) -> RebuildRig:
    """A table with two items, one of them changed by hand."""
    rig = RebuildRig(lake)
    rig.run([put("a", 1, n=1), put("b", 1, n=1)])
    return rig


def test_a_running_job_takes_up_a_new_table_and_writes_both_from_then_on(rig: RebuildRig) -> None:
    with rig.opened() as lanes:
        rig.begin()
        write(lanes, [put("a", 2, n=2)])
        assert rig.table(NEW).count("true") == 0
        ask(rig.table(OLD), REBUILD, rig.clock())
        rig.pause(lanes)
        assert rig.holder(NEW) is not None
        write(lanes, [put("a", 3, n=3), remove("b", 4)])
        assert (
            rig.state_of(NEW) == rig.state_of(OLD) == [(put("a", 3).seq, False, 3.0), (remove("b", 4).seq, True, None)]
        )
    assert (rig.holder(NEW), rig.holder(OLD)) == (None, None)
    assert len(rig.rows("things/history", "_seq")) == 5


def test_a_job_that_starts_finds_the_new_table_by_itself(rig: RebuildRig) -> None:
    rig.begin()
    rig.run([put("c", 1, n=1)])
    assert rig.state_of(NEW) == [(put("c", 1).seq, False, 1.0)]


def test_a_rebuild_begun_while_a_job_waits_for_the_table_is_taken_up(
    rig: RebuildRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    while_waiting(monkeypatch, rig.begin)
    rig.run([put("c", 1, n=1)])
    assert rig.state_of(NEW) == [(put("c", 1).seq, False, 1.0)]


@pytest.mark.parametrize("step", [Step.HISTORY, Step.CURRENT])
@pytest.mark.parametrize("nth", [1, 2])
def test_a_job_killed_between_the_two_tables_writes_both_when_the_batch_comes_again(
    rig: RebuildRig, step: Step, nth: int
) -> None:
    rig.begin()
    batch = [put("a", 2, n=2), remove("b", 2)]
    lanes, _ = rig.lanes(CrashAfter(step, nth), dead_process())
    lanes.open()
    with pytest.raises(KilledError):
        write(lanes, batch)
    rig.run(batch)
    assert rig.state_of(NEW) == rig.state_of(OLD) == [(put("a", 2).seq, False, 2.0), (remove("b", 2).seq, True, None)]
    assert len(rig.rows("things/history", "_seq")) == 4


def test_promoted_the_old_table_has_the_new_ones_rows_columns_and_rules_in_one_commit_and_the_job_goes_on(
    rig: RebuildRig,
) -> None:
    """Another type of a column; whoever began to read before goes on reading what there was."""
    rules = table_config(columns={"n": {"type": "bigint"}})
    with rig.opened() as lanes:
        rig.begin(rules)
        ask(rig.table(OLD), REBUILD, rig.clock())
        rig.pause(lanes)
        write(lanes, [scanned("a", n=1), scanned("b", n=1), put("c", 1, n=1)])
        reader = DeltaTable(str(rig.root / OLD))
        before = reader.version()
        rig.is_now(State.PROMOTING)
        rig.pause(lanes)
        assert rig.state() is State.PROMOTED
        write(lanes, [put("d", 1, n=7)])
        assert rig.holder(NEW) is None
    rows = rig.rows(OLD, "_key", "_op", "n")
    assert [(row["_op"], row["n"]) for row in rows] == [("SNAPSHOT", 1), ("SNAPSHOT", 1), ("MODIFY", 1), ("MODIFY", 7)]
    assert all(isinstance(row["n"], int) for row in rows)
    commits = [entry.get("operationParameters", {}) for entry in DeltaTable(str(rig.root / OLD)).history()]
    assert sum(how.get("mode") == "Overwrite" and "predicate" not in how for how in commits) == 1
    assert (reader.version(), reader.count()) == (before, 3)
    again = RebuildRig(rig.root, rules)
    assert again.run([put("d", 2, n=8)])[0].failure is None


def test_nothing_is_promoted_while_changes_of_the_new_table_are_parked(rig: RebuildRig) -> None:
    """Its folder goes away and comes back; the old table is written all the while."""
    away = rig.root / "away"
    with rig.opened() as lanes:
        rig.begin()
        ask(rig.table(OLD), REBUILD, rig.clock())
        rig.pause(lanes)
        (rig.root / NEW).rename(away)
        report = write(lanes, [put("a", 2, n=2)])
        assert (report.failure, report.parked) == (None, 0)
        assert len(rig.rows("rebuild_parked", "_key")) == 1
        (rig.root / NEW).rename(rig.root / "left") if (rig.root / NEW).exists() else None
        away.rename(rig.root / NEW)
        rig.is_now(State.PROMOTING)
        rig.clock.now_ms += 1
        lanes.between_batches()
        rig.clock.now_ms += 120_000
        rig.pause(lanes)
        rig.pause(lanes)
        assert rig.state() is State.PROMOTED
    assert rig.state_of(OLD) == [(put("a", 2).seq, False, 2.0)]
    assert rig.rows("rebuild_parked", "_key") == []


@pytest.mark.parametrize("made", [1, 2, 3])
def test_killed_anywhere_in_a_promotion_the_next_job_finishes_it_before_its_first_batch(
    rig: RebuildRig, made: int
) -> None:
    """Killed after what is said of the rows, after the rows, after the new table says so."""
    rig.begin(since_ms=DAY_MS)
    rig.run([scanned("a", n=1), put("c", 1, n=1)])
    rig.is_now(State.PROMOTING)
    old, new = rig.table(OLD), rig.table(NEW)
    commits: list[Callable[[], None]] = [
        lambda: old.set_properties({current.SCANNED_PROPERTY: str(DAY_MS), UNPROVEN_PROPERTY: ""}),
        lambda: old.become(new.location, NUMBER),
        lambda: rig.is_now(State.PROMOTED),
    ]
    for commit in commits[:made]:
        commit()
    with rig.opened() as after:
        assert rig.state() is State.PROMOTED
        write(after, [put("e", 1, n=5)])
    assert [row["_key"] for row in rig.rows(OLD, "_key")] == ['{"id":"a"}', '{"id":"c"}', '{"id":"e"}']
    assert rig.table(OLD).properties()[current.SCANNED_PROPERTY] == str(DAY_MS)


def test_taken_over_once_a_table_is_not_taken_over_again(rig: RebuildRig) -> None:
    """What was written after it stays, whoever asks for the same taking over once more."""
    rig.begin()
    rig.run([put("c", 1, n=1)])
    old = rig.table(OLD)
    for _ in range(2):
        old.become(rig.places.rebuilt, NUMBER)
    assert rig.state_of(OLD) == [(put("c", 1).seq, False, 1.0)]
    rig.run([put("d", 1, n=1)])
    rig.table(OLD).become(rig.places.rebuilt, NUMBER)
    assert len(rig.state_of(OLD)) == 2


def test_an_abandoned_table_is_let_go_and_the_old_one_stays(rig: RebuildRig) -> None:
    with rig.opened() as lanes:
        rig.begin()
        ask(rig.table(OLD), REBUILD, rig.clock())
        rig.pause(lanes)
        rig.is_now(State.ABANDONED)
        rig.pause(lanes)
        assert rig.holder(NEW) is None
        assert rig.holder(OLD) is not None
        write(lanes, [put("a", 2, n=2)])
    assert rig.table(NEW).count("true") == 0
    assert len(rig.state_of(OLD)) == 2


def test_what_was_made_before_the_scan_is_history_only_in_a_rebuilt_table(rig: RebuildRig) -> None:
    """A change lost in a gap leaves the one before it as the newest known: late or redriven, it must not win."""
    rig.begin(since_ms=DAY_MS + 3_600_000)
    late, later = put("b", 9, n=-1), replace(put("b", 10, n=2), created_ms=DAY_MS + 3_600_000)
    rig.run([scanned("a", n=5), late])
    assert rig.state_of(NEW) == [(scanned("a").seq, False, 5.0)]
    rig.is_now(State.PROMOTING)
    rig.run([late], [later, put("gone", 3, n=3)])
    assert rig.state_of(OLD) == [(scanned("a").seq, False, 5.0), (later.seq, False, 2.0)]
    assert len(rig.rows("things/history", "_seq")) == 6


def test_a_repair_by_a_change_from_before_the_scan_is_meant(rig: RebuildRig) -> None:
    """The row came from the scan; the stream still has the item's last change, which is older."""
    rig.begin(since_ms=DAY_MS + 3_600_000)
    rig.run([scanned("a", n=5)])
    rig.is_now(State.PROMOTING)
    with rig.opened() as lanes:
        write(lanes, [put("a", 1, n=1)])
        assert [row["_op"] for row in rig.rows(OLD, "_op")] == ["SNAPSHOT"]
        lanes.run(collected([put("a", 1, n=1)]), repair=True)
    assert rig.state_of(OLD) == [(put("a", 1).seq, False, 1.0)]


def test_a_new_table_that_cannot_be_read_does_not_hold_the_old_one(
    rig: RebuildRig, caplog: pytest.LogCaptureFixture
) -> None:
    """Its log is half deleted; mended, both are written."""
    rig.begin()
    log = rig.root / NEW / "_delta_log"
    (first,) = log.glob("*.json")
    whole = first.read_text()
    first.write_text(whole[:40])
    with rig.opened() as lanes:
        assert "a step of the rebuild failed" in caplog.text
        assert write(lanes, [put("a", 2, n=2)]).failure is None
        first.write_text(whole)
        rig.pause(lanes)
        write(lanes, [put("a", 3, n=3)])
    assert rig.state_of(NEW) == [(put("a", 3).seq, False, 3.0)]
    assert len(rig.state_of(OLD)) == 2


def test_a_lost_table_is_written_by_its_rebuild_alone_until_that_is_promoted(rig: RebuildRig) -> None:
    (rig.root / OLD).rename(rig.root / "lost")
    rig.begin()
    with rig.opened() as lanes:
        write(lanes, [scanned("a", n=1), put("b", 2, n=2)])
        assert not (rig.root / OLD).exists()
        rig.is_now(State.PROMOTING)
        rig.pause(lanes)
        write(lanes, [put("c", 1, n=3)])
    assert [row["n"] for row in rig.rows(OLD, "_key", "n")] == [1.0, 2.0, 3.0]
    assert rig.table(OLD).properties().items() >= current_properties("rust", rig.settings).items()


def test_a_lost_history_is_begun_anew_by_a_rebuild(rig: RebuildRig) -> None:
    (rig.root / "things/history").rename(rig.root / "lost")
    with pytest.raises(HalfATableError):
        rig.run([])
    rig.begin()
    rig.run([put("a", 2, n=2)])
    assert len(rig.rows("things/history", "_seq")) == 1


def test_a_lost_table_whose_rebuild_is_given_up_stops_the_job(rig: RebuildRig) -> None:
    (rig.root / OLD).rename(rig.root / "lost")
    rig.begin()
    lanes, _ = rig.lanes()
    lanes.open()
    rig.is_now(State.ABANDONED)
    with pytest.raises(HalfATableError):
        rig.pause(lanes)


def test_upkeep_that_is_asked_for_is_done_by_the_job_and_answered_in_the_table(rig: RebuildRig) -> None:
    lanes, assembly = rig.lanes()
    lanes.open()
    asked_ms = rig.clock()
    ask(rig.table(OLD), MAINTAIN, asked_ms)
    for _ in range(20):
        rig.pause(lanes)
        assembly.tend()
    lanes.close()
    answer = read(rig.table(OLD).properties()[MAINTAINED])
    assert answer is not None
    assert answer["asked_ms"] == asked_ms
    assert {task["task"] for task in answer["tasks"]} == {"compaction", "vacuum"}
    assert {Path(task["location"]).name for task in answer["tasks"]} >= {"current", "history", "parked"}
    assert not any(task["failure"] for task in answer["tasks"])


def test_a_rebuild_is_read_as_it_was_written(rig: RebuildRig) -> None:
    rules = table_config(streams=[{"label": "2024-05-01T08:00:00.000", "since": "2026-11-02T00:00:00Z"}])
    rebuild = Rebuild(1, State.FILLED, "archive", rules.lake.model_dump(mode="json", by_alias=True))
    again = Rebuild.of(rebuild.as_properties())
    assert again is not None
    assert (asdict(again), again.lake) == (asdict(rebuild), rules.lake)
    assert Rebuild.of({REBUILD_PROPERTY: ""}) is None
