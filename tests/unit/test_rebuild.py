"""A rebuild as commands drive it: taken up, waited for, refused, cut off and gone on with. Real tables, no Spark."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

import pytest
from bucket_memory import BucketInMemory
from envelopes import DAY_MS, collected, put
from lake_rig import table_config
from lanes_rig import LanesRig
from pyspark.sql.types import StructType
from typer.testing import CliRunner, Result

from config.errors import LakestreamError
from config.tables import TableConfig
from streaming_job.cli import app
from streaming_job.objects import Bucket
from streaming_job.operations.rebuild import NotTakenUpError, Rebuilding, RebuildRefusedError
from streaming_job.operations.rebuild_fill import FirstLoad, first_loads, refuse_gaps, refuse_other_rules
from streaming_job.pipeline.current import SCANNED_PROPERTY
from streaming_job.pipeline.lease import Lease, Owner
from streaming_job.pipeline.merge import TableSpec
from streaming_job.pipeline.order import UNPROVEN_PROPERTY
from streaming_job.pipeline.properties import written
from streaming_job.pipeline.rebuild import State
from streaming_job.pipeline.table_lanes import TableLanes

Batch = Callable[[], AbstractContextManager[TableLanes]]


@pytest.fixture
def rig(lake: Path) -> LanesRig:
    rig = LanesRig(lake)
    rig.run([put("a", 1, n=1), put("b", 1, n=1)])
    return rig


def rebuilding(rig: LanesRig, config: TableConfig | None = None, *, wait_s: float = 3_600) -> Rebuilding:
    """Its pauses are real and short where a job runs; the clock goes on by itself."""
    return Rebuilding(
        settings=rig.settings,
        config=config or rig.config,
        tables=rig.tables,
        clock=rig.clock,
        wait_s=wait_s,
        sleep=lambda _: Event().wait(0.01) and None,
    )


@contextmanager
def job_running(rig: LanesRig) -> Iterator[Batch]:
    """On a quiet stream: it tends its tables now and then, but not while a batch is under way."""
    lanes, _ = rig.lanes(owner=Owner("the job", "elsewhere", 7))
    lanes.open()
    stop, one_at_a_time = Event(), Lock()

    def tend() -> None:
        while not stop.wait(0.01):
            rig.clock.now_ms += 1_000
            with one_at_a_time:
                lanes.between_batches()

    @contextmanager
    def batch() -> Iterator[TableLanes]:
        with one_at_a_time:
            yield lanes

    thread = Thread(target=tend)
    thread.start()
    try:
        yield batch
    finally:
        stop.set()
        thread.join()
        lanes.close()


def held_by_another(rig: LanesRig) -> None:
    table = rig.tables.open("rust", TableSpec(rig.places.current, StructType()))
    Lease(table, Owner("the job", "elsewhere", 7), duration_ms=100_000_000, clock=rig.clock).acquire()


def test_where_nobody_writes_the_table_the_command_has_to(rig: LanesRig) -> None:
    work = rebuilding(rig)
    begun = work.begin("snapshot", DAY_MS)
    assert work.wait_until_taken_up() is None
    assert work.standing() == begun
    assert rig.tables.properties(rig.places.rebuilt)[SCANNED_PROPERTY] == str(DAY_MS)
    assert work.rows() == work.parked() == 0


def test_a_job_takes_it_up_promotes_it_and_lets_go_of_it(rig: LanesRig) -> None:
    work = rebuilding(rig)
    with job_running(rig) as batch:
        work.begin("snapshot", None)
        assert str(work.wait_until_taken_up()) == "the job (host elsewhere, process 7)"
        with batch() as lanes:
            lanes.run(collected([put("c", 1, n=1)]))
        work.is_now(State.FILLED)
        work.is_now(State.PROMOTING)
        work.wait_until_promoted(lambda: pytest.fail("the job does it"))
        work.clear_away()
    assert not Path(str(rig.places.rebuilt)).exists()
    assert [row["_key"] for row in rig.rows("things/current", "_key")] == ['{"id":"c"}']


def test_where_nobody_holds_the_tables_the_command_promotes_by_opening_them(rig: LanesRig) -> None:
    work = rebuilding(rig)
    work.begin("snapshot", None)
    rig.run([put("c", 1, n=1)])
    work.is_now(State.PROMOTING)
    work.wait_until_promoted(lambda: rig.run([]) and None)
    work.clear_away()
    assert [row["_key"] for row in rig.rows("things/current", "_key")] == ['{"id":"c"}']


def test_a_job_that_promotes_it_between_two_looks_leaves_the_command_nothing_to_do(
    rig: LanesRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = rebuilding(rig)
    work.begin("snapshot", None)
    rig.run([put("c", 1, n=1)])
    work.is_now(State.PROMOTING)
    monkeypatch.setattr(Rebuilding, "writer", lambda _: rig.run([]) and None)
    work.wait_until_promoted(lambda: pytest.fail("the job did it"))


def test_a_job_that_does_not_take_it_up_is_named(rig: LanesRig) -> None:
    held_by_another(rig)
    work = rebuilding(rig, wait_s=0)
    work.begin("snapshot", None)
    with pytest.raises(NotTakenUpError, match=r"the job .* does not write the new one") as raised:
        work.wait_until_taken_up()
    assert raised.value.exit_code == 10


def test_what_was_begun_otherwise_is_not_gone_on_with(rig: LanesRig) -> None:
    begun = rebuilding(rig).begin("snapshot", None)
    other = table_config(columns={"n": {"type": "bigint"}})
    rebuilding(rig).same(begun, "snapshot")
    with pytest.raises(RebuildRefusedError, match="from snapshot was begun"):
        rebuilding(rig).same(begun, "archive")
    with pytest.raises(RebuildRefusedError, match="not those the rebuild was begun with"):
        rebuilding(rig, other).same(begun, "snapshot")


def test_a_rebuild_that_is_none_cannot_be_gone_on_with(rig: LanesRig) -> None:
    with pytest.raises(RebuildRefusedError, match="not being rebuilt") as raised:
        rebuilding(rig).is_now(State.PROMOTING)
    assert raised.value.exit_code == 9


def test_abandoned_everything_of_it_goes_and_the_table_stays(rig: LanesRig) -> None:
    """Changes that were parked for it too; twice is as good as once."""
    work = rebuilding(rig)
    with job_running(rig) as batch:
        work.begin("snapshot", None)
        work.wait_until_taken_up()
        with batch() as lanes:
            (rig.root / "things/rebuilt/_delta_log").rename(rig.root / "broken")
            lanes.run(collected([put("c", 1, n=1)]))
            (rig.root / "broken").rename(rig.root / "things/rebuilt/_delta_log")
        assert work.parked() == 1
        work.abandon()
        work.abandon()
    assert (work.standing(), work.parked()) == (None, 0)
    assert not Path(str(rig.places.rebuilt)).exists()
    assert len(rig.rows("things/current", "_key")) == 3


def test_what_is_being_promoted_is_not_abandoned(rig: LanesRig) -> None:
    work = rebuilding(rig)
    work.begin("snapshot", None)
    work.is_now(State.PROMOTING)
    with pytest.raises(RebuildRefusedError, match="being promoted"):
        work.abandon()


# --- from the archive -------------------------------------------------------------------------------------------------


def manifest(bucket: BucketInMemory, name: str, **said: Any) -> None:
    content = {"id": name, "table": "things", "rules": "1", "began_ms": DAY_MS, **said}
    bucket.put(f"snapshot/{name}/manifest.json", json.dumps(content).encode(), DAY_MS)


def test_the_archives_first_loads_are_the_whole_ones_of_the_table() -> None:
    store = BucketInMemory()
    manifest(store, "second", began_ms=DAY_MS + 1)
    manifest(store, "first")
    manifest(store, "of-others", table="others")
    store.put("snapshot/cut-off/0000-000000.ndjson.gz", b"", DAY_MS)
    assert [load.id for load in first_loads(Bucket(store, "b"), "things")] == ["first", "second"]


def test_an_archive_of_other_rules_is_refused() -> None:
    loads = [FirstLoad("old", "1", DAY_MS), FirstLoad("new", "2", DAY_MS + 1)]
    refuse_other_rules(loads[1:], "2")
    with pytest.raises(RebuildRefusedError, match="made by rules 1, now they are 2"):
        refuse_other_rules(loads, "2")


@pytest.mark.parametrize("marked_ms", [DAY_MS + 1, 0])
def test_an_archive_with_a_recorded_gap_is_refused(rig: LanesRig, marked_ms: int) -> None:
    """A mark that says no time may be of any."""
    store, first = BucketInMemory(), FirstLoad("first", "1", DAY_MS)
    store.put("unproven/things/before.json", json.dumps({"reason": "near-expiry", "marked_ms": 5}).encode(), 5)
    refuse_gaps(Bucket(store, "b"), "things", first, rebuilding(rig))
    mark = {"reason": "near-expiry", "marked_ms": marked_ms}
    store.put("unproven/things/after.json", json.dumps(mark).encode(), DAY_MS)
    with pytest.raises(RebuildRefusedError, match="may have been lost"):
        refuse_gaps(Bucket(store, "b"), "things", first, rebuilding(rig))


def test_the_archive_of_a_table_whose_stream_was_made_anew_is_refused(rig: LanesRig) -> None:
    table = rig.tables.open("rust", TableSpec(rig.places.current, StructType()))
    table.set_properties({UNPROVEN_PROPERTY: written({"since_ms": DAY_MS, "why": "another stream"})})
    with pytest.raises(RebuildRefusedError, match="another stream"):
        refuse_gaps(Bucket(BucketInMemory(), "b"), "things", FirstLoad("first", "1", DAY_MS), rebuilding(rig))


# --- as commands ------------------------------------------------------------------------------------------------------


def invoked(rig: LanesRig, folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--config", str(rig.configured(folder)), "--json"])


def test_status_says_how_far_it_is_and_that_nobody_writes(rig: LanesRig, tmp_path: Path) -> None:
    assert json.loads(invoked(rig, tmp_path, "rebuild", "status").stdout) == {"table": "things", "state": None}
    rebuilding(rig).begin("snapshot", None)
    said = json.loads(invoked(rig, tmp_path, "rebuild", "status", "things").stdout)
    assert (said["state"], said["from"], said["written_by"], said["rows"]) == ("filling", "snapshot", None, 0)


def test_abandon_as_a_command_takes_the_new_table_and_the_snapshots_state_away(rig: LanesRig, tmp_path: Path) -> None:
    rebuilding(rig).begin("snapshot", None)
    (tmp_path / "rebuild-things.json").write_text("{}")
    assert json.loads(invoked(rig, tmp_path, "rebuild", "abandon").stdout)["abandoned"] is True
    assert json.loads(invoked(rig, tmp_path, "rebuild", "abandon").stdout)["abandoned"] is False
    assert not (tmp_path / "rebuild-things.json").exists()


@pytest.mark.parametrize(
    ("arguments", "says", "code"),
    [
        (("rebuild", "nobodys"), "no table 'nobodys'", 2),
        (("promote",), "not being rebuilt", 9),
        (("promote", "nobodys"), "no table 'nobodys'", 2),
        (("rebuild", "things", "--from", "archive"), "names no bucket", 2),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_made(
    rig: LanesRig, tmp_path: Path, arguments: tuple[str, ...], says: str, code: int
) -> None:
    error = invoked(rig, tmp_path, *arguments).exception
    assert isinstance(error, LakestreamError)
    assert says in error.what
    assert error.exit_code == code
    assert not Path(str(rig.places.rebuilt)).exists()


def test_a_table_that_is_not_filled_is_not_promoted(rig: LanesRig, tmp_path: Path) -> None:
    rebuilding(rig).begin("snapshot", None)
    error = invoked(rig, tmp_path, "promote").exception
    assert isinstance(error, RebuildRefusedError)
    assert "not filled yet" in error.what
