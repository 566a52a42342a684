"""Upkeep: on a budget, in order of what is due, and never in the way of a batch. Tables are real, the clock is not."""

import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from envelopes import DAY_MS, Change, put, remove

from config.settings import UpkeepSettings
from config.tables import DeleteRule, LakeRules
from streaming_job.errors import LeaseLostError
from streaming_job.pipeline import current
from streaming_job.pipeline.locations import Location
from streaming_job.pipeline.merge import Guard, TableSpec, no_guard
from streaming_job.pipeline.merge_rust import RustTable, arrow_schema
from streaming_job.pipeline.upkeep import Budget, Outcome, Task, Upkeep, compaction, purge, purge_now, vacuum

HOUR_MS = 3_600_000


class Clock:
    def __init__(self) -> None:
        self.now_ms = DAY_MS

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def table(lake: Path) -> RustTable:
    return RustTable(TableSpec(Location(path=str(lake / "current")), current.SYSTEM))


def write(table: RustTable, change: Change, at_ms: int = DAY_MS) -> None:
    row = {
        "_key": change.key_text, "_seq": change.seq, "_op": change.op, "_deleted": change.op == "REMOVE",
        "_ttl": change.ttl, "_created_ms": change.created_ms, "_ingest_ts": datetime.fromtimestamp(at_ms / 1000, UTC),
    }  # fmt: skip
    current.write(table, pa.Table.from_pylist([row], schema=arrow_schema(current.SYSTEM)), no_guard)


def keys(table: RustTable) -> list[str]:
    return sorted(table.read(["_key"])["_key"].to_pylist())


def task(table: RustTable, run: Callable[[], str | None]) -> Task:
    return Task("made up", table.location, lambda: True, run, plan=lambda: None)


# --- the budget


def test_a_task_that_took_longer_than_the_budget_is_paid_back_before_the_next(clock: Clock) -> None:
    budget = Budget(2_000, clock)
    assert budget.allows()
    budget.spend(7_000)
    clock.now_ms += 2 * 60_000
    assert not budget.allows()
    clock.now_ms += 60_000
    assert budget.allows()


def test_what_was_not_spent_does_not_pile_up(clock: Clock) -> None:
    budget = Budget(2_000, clock)
    clock.now_ms += 24 * HOUR_MS
    assert budget.allows()
    budget.spend(2_000)
    assert not budget.allows()


def test_no_budget_is_no_upkeep(clock: Clock) -> None:
    assert not Budget(0, clock).allows()


# --- tasks


def test_one_task_a_pause_and_the_tasks_by_turns(table: RustTable, clock: Clock) -> None:
    upkeep = Upkeep(UpkeepSettings(), clock)
    upkeep.take_on([task(table, lambda: "first"), task(table, lambda: "second")])
    assert [upkeep.run_one() for _ in range(4)] == ["first", "second", "first", "second"]


def test_upkeep_that_fails_holds_neither_the_batches_nor_other_upkeep(
    table: RustTable, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> str:
        raise OSError("no space left")

    upkeep = Upkeep(UpkeepSettings(), clock)
    upkeep.take_on([task(table, fail), task(table, lambda: "done")])
    assert [upkeep.run_one() for _ in range(3)] == [None, "done", "done"]
    assert "no space left" in str(caplog.records[0].__dict__["why"])
    clock.now_ms += 11 * 60_000
    assert None in [upkeep.run_one() for _ in range(2)]


def test_a_look_for_what_is_due_that_fails_is_upkeep_that_failed(
    table: RustTable, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    def look() -> bool:
        raise OSError("the folder is away")

    upkeep = Upkeep(UpkeepSettings(), clock)
    upkeep.take_on([Task("made up", table.location, look, lambda: "never", plan=lambda: None)])
    upkeep.take_on([task(table, lambda: "done")])
    assert [upkeep.run_one() for _ in range(3)] == ["done", "done", "done"]
    assert [record.__dict__["why"] for record in caplog.records] == ["the folder is away"]


def test_an_answer_that_cannot_be_given_holds_nothing(table: RustTable, clock: Clock) -> None:
    def tell(_outcomes: Sequence[Outcome]) -> None:
        raise OSError("the folder is away")

    upkeep = Upkeep(UpkeepSettings(), clock)
    upkeep.take_on([task(table, lambda: "done")], "cars")
    upkeep.ask("cars", tell)
    assert [upkeep.run_one() for _ in range(2)] == ["done", "done"]


def test_a_lost_lease_is_no_upkeep_trouble_and_stops_the_job(table: RustTable, clock: Clock) -> None:
    def lost() -> str:
        raise LeaseLostError("taken over")

    upkeep = Upkeep(UpkeepSettings(), clock)
    upkeep.take_on([task(table, lost)])
    with pytest.raises(LeaseLostError):
        upkeep.run_one()


def test_compaction_is_due_when_so_many_small_files_lie_there_whoever_wrote_them(
    table: RustTable, clock: Clock, lake: Path
) -> None:
    """Another handle writes, as another process would; a look costs little, and is taken a few times a minute."""
    settings = UpkeepSettings(compact_after_files=3)
    upkeep = Upkeep(settings, clock)
    upkeep.take_on([compaction(table, settings, clock, no_guard)])
    other = RustTable(TableSpec(Location(path=str(lake / "current")), current.SYSTEM))
    for number in range(2):
        write(other, put(f"k{number}", 1))
    assert upkeep.run_one() is None
    write(other, put("k2", 1))
    assert upkeep.run_one() is None
    clock.now_ms += 60_000
    assert upkeep.run_one() == "3 files joined"
    clock.now_ms += 60_000
    assert upkeep.run_one() is None
    assert len(keys(table)) == 3


def test_between_batches_files_are_joined_in_steps_and_for_who_asks_into_large_ones(
    table: RustTable, clock: Clock
) -> None:
    """What is larger than a step is left alone: a pause is as short when the table has grown."""
    settings = UpkeepSettings(compact_after_files=3, compact_step_bytes=2**20)
    task = compaction(table, settings, clock, no_guard)

    def files() -> set[str]:
        return set(DeltaTable(str(table.location)).file_uris())

    write(table, put(os.urandom(2**20).hex(), 1))
    large = files()
    for number in range(3):
        write(table, put(f"k{number}", 1))
    assert task.is_due()
    assert task.run() == "3 files joined"
    assert len(files()) == 2
    assert large < files()
    assert task.run() == "2 files joined"
    assert len(files()) == 1


def test_files_that_compaction_cannot_join_do_not_make_it_due_again(clock: Clock) -> None:
    """A hundred partitions of one small file each stay as they are."""
    settings, scattered = UpkeepSettings(compact_after_files=3), UnjoinableTable()
    task = compaction(scattered, settings, clock, no_guard)  # type: ignore[arg-type]
    assert task.is_due()
    assert task.run() is None
    clock.now_ms += 60_000
    assert not task.is_due()
    scattered.small += 3
    clock.now_ms += 60_000
    assert task.is_due()


class UnjoinableTable:
    """As Spark sees a table of many partitions: by the mean of its files."""

    engine = "spark"
    location = Location(path="scattered")
    small = 100

    def refresh(self) -> None: ...

    def small_files(self, _target_bytes: int) -> int:
        return self.small

    def compact(self, *, target_bytes: int, guard: Guard) -> int:
        guard()
        assert target_bytes > 0
        return 0


def test_what_a_person_asks_for_is_done_due_or_not_a_task_a_pause_at_least_and_told_when_all_of_it_is(
    table: RustTable, clock: Clock
) -> None:
    """Of the table asked for and of what it shares with others; without a budget even."""
    told: list[Sequence[Outcome]] = []

    def fail() -> str:
        raise OSError("no space left")

    upkeep = Upkeep(UpkeepSettings(budget_ms=0), clock)
    for owner, run in (("cars", lambda: "joined"), ("cars", fail), ("others", lambda: "never"), (None, lambda: None)):
        upkeep.take_on([Task("made up", table.location, lambda: False, run, plan=lambda: None)], owner)
    assert upkeep.run_one() is None
    upkeep.ask("cars", told.append)
    assert upkeep.run_one() == "joined"
    assert told == []
    assert [upkeep.run_one() for _ in range(2)] == [None, None]
    ((first, second, shared),) = told
    assert (first.done, second.failure, shared) == (
        "joined",
        "OSError: no space left",
        Outcome("made up", str(table.location)),
    )


def test_a_table_that_is_let_go_is_not_looked_after_any_more(table: RustTable, clock: Clock) -> None:
    upkeep = Upkeep(UpkeepSettings(), clock)
    upkeep.take_on([task(table, lambda: "done")])
    upkeep.let_go(table.location)
    assert upkeep.run_one() is None


def test_vacuum_runs_once_a_day_even_when_the_job_restarts_often_and_leaves_what_is_young(
    table: RustTable, clock: Clock, lake: Path
) -> None:
    settings = UpkeepSettings()
    write(table, put("a", 1))
    write(table, put("a", 2))
    for _ in range(2):
        upkeep = Upkeep(settings, clock)
        upkeep.take_on([vacuum(table, settings, clock, no_guard)])
        assert upkeep.run_one() in {"0 files deleted", None}
    said = [entry for entry in DeltaTable(str(lake / "current")).history() if "PROPERTIES" in entry["operation"]]
    assert len(said) == 1
    assert len(list((lake / "current").glob("*.parquet"))) == 2


def test_what_was_replaced_is_remembered_as_long_as_its_files_are_to_stay(table: RustTable, clock: Clock) -> None:
    said: list[str | None] = []
    for hours in (168, 720, 240, 168):
        vacuum(table, UpkeepSettings(vacuum_retention_h=hours), clock, no_guard).run()
        said.append(table.properties().get("delta.deletedFileRetentionDuration"))
    assert said == [None, "interval 720 hours", "interval 240 hours", "interval 168 hours"]


def test_what_a_person_said_in_words_of_his_own_stands(table: RustTable, clock: Clock) -> None:
    table.set_properties({"delta.deletedFileRetentionDuration": "interval 3 days"})
    vacuum(table, UpkeepSettings(vacuum_retention_h=168), clock, no_guard).run()
    assert table.properties()["delta.deletedFileRetentionDuration"] == "interval 3 days"


def test_a_shorter_vacuum_than_a_week_cannot_be_configured() -> None:
    with pytest.raises(ValueError, match="vacuum_retention_h"):
        UpkeepSettings(vacuum_retention_h=167)


# --- purge


def test_tombstones_go_after_their_own_window_and_live_rows_never(table: RustTable) -> None:
    windows = {False: DeleteRule(policy="hard", window_h=48), True: DeleteRule(policy="hard", window_h=1)}
    for change in (put("live", 1), remove("deleted", 1), remove("expired", 1, ttl=True)):
        write(table, change)
    assert purge_now(table, windows, DAY_MS + 2 * HOUR_MS, no_guard) == 1
    assert keys(table) == ['{"id":"deleted"}', '{"id":"live"}']
    assert purge_now(table, windows, DAY_MS + 47 * HOUR_MS, no_guard) == 0
    assert purge_now(table, windows, DAY_MS + 49 * HOUR_MS, no_guard) == 1
    assert keys(table) == ['{"id":"live"}']


def test_until_when_tombstones_may_be_gone_is_said_before_they_go(table: RustTable) -> None:
    """A crash between the two: the property stands, the tombstone too, and nothing is lost."""
    write(table, remove("a", 1))
    hard = DeleteRule(policy="hard", window_h=1)
    attempts: list[str | None] = []

    def crash_before_the_delete() -> None:
        attempts.append(table.properties().get(current.PURGED_PROPERTY))
        if len(attempts) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        purge_now(table, {False: hard, True: hard}, DAY_MS + 2 * HOUR_MS, crash_before_the_delete)
    assert attempts == [None, str(DAY_MS + 1)]
    assert keys(table) == ['{"id":"a"}']


def test_soft_deletes_are_never_purged(table: RustTable, clock: Clock) -> None:
    assert purge(table, LakeRules(name="t"), UpkeepSettings(), clock, no_guard) is None
    mixed = LakeRules(name="t", expiries=DeleteRule(policy="hard", window_h=1))
    write(table, remove("deleted", 1))
    upkeep_task = purge(table, mixed, UpkeepSettings(), clock, no_guard)
    assert upkeep_task is not None
    clock.now_ms += 1_000 * HOUR_MS
    assert upkeep_task.run() is None
    assert keys(table) == ['{"id":"deleted"}']
