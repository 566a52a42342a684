"""`maintain`: what there is to do, done here or by the job that has the tables; real tables, a clock of the test's."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import pytest
from deltalake import DeltaTable
from envelopes import put, remove
from lake_rig import table_config
from lanes_rig import LanesRig
from pyspark.sql.types import StructType
from typer.testing import CliRunner

from streaming_job.cli import app
from streaming_job.operations.maintain import Maintained, Maintenance, NotYetMaintainedError
from streaming_job.pipeline.current import PURGED_PROPERTY
from streaming_job.pipeline.lease import Lease, Owner, holder_of
from streaming_job.pipeline.merge import LakeTable, TableSpec
from streaming_job.pipeline.requests import MAINTAIN

HOUR_MS = 3_600_000
HARD = table_config(deletes={"policy": "hard", "window_h": 24})


@pytest.fixture
def rig(lake: Path) -> LanesRig:
    """Some small files, a tombstone, and time gone by: the clock of what was written is the rig's own."""
    rig = LanesRig(lake, HARD)
    rig.run([put("a", 1, n=1)], [put("b", 1, n=1)], [put("c", 1, n=1)], [remove("a", 2)])
    rig.clock.now_ms += 30 * HOUR_MS
    return rig


def maintenance(rig: LanesRig, *, wait_s: float = 60, sleep: Callable[[float], None] = lambda _: None) -> Maintenance:
    return Maintenance(rig.settings, rig.tables, clock=rig.clock, wait_s=wait_s, sleep=sleep)


def by_task(done: Maintained, place: str) -> dict[str, str | None]:
    return {task.task: task.done for task in done.tasks if Path(task.location).name == place}


def opened(rig: LanesRig) -> LakeTable:
    return rig.tables.open("rust", TableSpec(rig.places.current, StructType()))


def versions(rig: LanesRig) -> dict[str, int]:
    folders = [path.parent for path in rig.root.rglob("_delta_log")]
    return {str(folder): DeltaTable(str(folder)).version() for folder in folders}


def test_a_dry_run_says_what_would_be_done_and_changes_nothing(rig: LanesRig) -> None:
    before = versions(rig)
    things, shared = maintenance(rig).plan([HARD])
    assert versions(rig) == before
    plan = by_task(things, "current")
    assert plan["purge"] == "1 tombstones to purge"
    assert "small files to join" in str(by_task(things, "history")["compaction"])
    assert by_task(shared, "parked") == {"compaction": None, "vacuum": None}


def test_where_no_job_runs_it_takes_the_lease_does_all_of_it_and_gives_the_lease_back(rig: LanesRig) -> None:
    things, shared = maintenance(rig).run([HARD])
    assert things.by == shared.by == "lakestream maintain"
    assert by_task(things, "current")["purge"] == "1 tombstones purged"
    assert by_task(things, "history")["compaction"] == "4 files joined"
    assert {task.task for task in shared.tasks} == {"compaction", "vacuum"}
    assert [row["_key"] for row in rig.rows("things/current", "_key")] == ['{"id":"b"}', '{"id":"c"}']
    properties = opened(rig).properties()
    assert holder_of(properties, rig.clock()) is None
    assert PURGED_PROPERTY in properties


def test_a_change_from_before_a_purge_does_not_bring_its_item_back(rig: LanesRig) -> None:
    list(maintenance(rig).run([HARD]))
    rig.run([put("a", 1, n=1)])
    assert [row["_key"] for row in rig.rows("things/current", "_key")] == ['{"id":"b"}', '{"id":"c"}']


@contextmanager
def job_running(rig: LanesRig) -> Iterator[None]:
    """A job on a quiet stream: it tends its tables now and then."""
    lanes, assembly = rig.lanes(owner=Owner("the job", "elsewhere", 7))
    lanes.open()
    stop = Event()

    def tend() -> None:
        while not stop.wait(0.01):
            rig.clock.now_ms += 1_000
            lanes.between_batches()
            assembly.tend()

    thread = Thread(target=tend)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        lanes.close()


def test_a_job_that_has_the_tables_is_asked_and_does_those_all_share_too(rig: LanesRig) -> None:
    with job_running(rig):
        (things,) = maintenance(rig, wait_s=3_600, sleep=Event().wait).run([HARD])
    assert things.by == "the job (host elsewhere, process 7)"
    assert by_task(things, "current").keys() == {"purge", "compaction", "vacuum"}
    assert by_task(things, "parked").keys() == {"compaction", "vacuum"}
    assert not things.failed
    assert [row["_key"] for row in rig.rows("things/current", "_key")] == ['{"id":"b"}', '{"id":"c"}']


def held_by_another(rig: LanesRig) -> Lease:
    lease = Lease(opened(rig), Owner("the job", "elsewhere", 7), duration_ms=HOUR_MS, clock=rig.clock)
    lease.acquire()
    return lease


def test_a_job_that_does_not_answer_in_time_has_been_asked_all_the_same(rig: LanesRig) -> None:
    held_by_another(rig)

    def time_goes_by(seconds: float) -> None:
        rig.clock.now_ms += int(seconds * 1000)

    with pytest.raises(NotYetMaintainedError, match=r"the job .* has the table, was asked") as raised:
        list(maintenance(rig, sleep=time_goes_by).run([HARD]))
    assert raised.value.exit_code == 10
    asked_ms = int(opened(rig).properties()[MAINTAIN])
    assert rig.clock.now_ms - 70_000 < asked_ms < rig.clock.now_ms - 60_000


def test_a_job_that_ends_while_it_is_waited_for_leaves_the_work_to_the_command(rig: LanesRig) -> None:
    lease = held_by_another(rig)
    things, _ = maintenance(rig, sleep=lambda _: lease.release()).run([HARD])
    assert things.by == "lakestream maintain"
    assert by_task(things, "current")["purge"] == "1 tombstones purged"


def test_an_interrupted_command_leaves_the_table_free_and_whole(rig: LanesRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C between two tasks."""

    def interrupt(what: str) -> None:
        if what.startswith("vacuum"):
            raise KeyboardInterrupt

    running = Maintenance(rig.settings, rig.tables, clock=rig.clock, wait_s=0, say=interrupt)
    with pytest.raises(KeyboardInterrupt):
        list(running.run([HARD]))
    assert holder_of(opened(rig).properties(), rig.clock()) is None
    assert len(rig.rows("things/current", "_key")) == 2


def test_a_table_that_is_not_there_is_not_made(lake: Path) -> None:
    rig = LanesRig(lake)
    things, shared = maintenance(rig).run([rig.config])
    assert (things.by, list(things.tasks), list(shared.tasks)) == ("nobody: there is no table yet", [], [])
    assert list(lake.iterdir()) == []


# --- as a command


def test_the_command_prints_what_was_done_as_one_object(rig: LanesRig, tmp_path: Path) -> None:
    """By the machine's own clock the tombstone's day was long ago, or is to come: that is no matter here."""
    file = rig.configured(tmp_path)
    answer = CliRunner().invoke(app, ["maintain", "--config", str(file), "--json"], catch_exceptions=False)
    said = json.loads(answer.stdout)
    assert (answer.exit_code, said["dry_run"], said["tables"]["things"]["by"]) == (0, False, "lakestream maintain")
    tasks = said["tables"]["things"]["tasks"]
    assert {
        "task": "compaction",
        "location": str(rig.places.history),
        "done": "4 files joined",
        "failure": None,
    } in tasks
    assert said["shared"]["by"] == "lakestream maintain"


def test_a_table_nobody_configured_is_refused_by_name(rig: LanesRig, tmp_path: Path) -> None:
    answer = CliRunner().invoke(app, ["maintain", "others", "--config", str(rig.configured(tmp_path))])
    assert answer.exception is not None
    assert "no table 'others'" in str(answer.exception)


def test_a_task_that_fails_is_named_and_the_others_are_done(
    rig: LanesRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from streaming_job.pipeline.merge_rust import RustTable  # noqa: PLC0415

    def fail(_table: RustTable, _retention_h: int) -> int:
        raise OSError("no space left")

    monkeypatch.setattr(RustTable, "vacuum", fail)
    answer = CliRunner().invoke(app, ["maintain", "--config", str(rig.configured(tmp_path)), "--json"])
    said = json.loads(answer.stdout)["tables"]["things"]["tasks"]
    assert answer.exit_code == 1
    assert {task["failure"] for task in said if task["task"] == "vacuum"} == {"OSError: no space left"}
    assert all(task["failure"] is None for task in said if task["task"] != "vacuum")
