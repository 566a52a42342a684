"""Commands hand work to the tables' writer: a job in the same process's clothes, killed and started again."""

import gzip
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable, write_deltalake
from envelopes import DAY_MS, Change, put, remove
from lake_rig import LakeRig, dead_process, table_config
from pyspark.sql import SparkSession

from config.settings import IntakeSettings
from streaming_job.operations.handing_over import Delivery, NotTakenInError, Standing, WithdrawnError
from streaming_job.operations.lake_rows import SparkLakeRows
from streaming_job.pipeline.intake import HandOver, Intake, Piece
from streaming_job.pipeline.intake_drain import Drain, PausableLatency, taking_in
from streaming_job.pipeline.lease import Owner
from streaming_job.pipeline.locations import Lake

pytestmark = pytest.mark.spark


@pytest.fixture
def rig(spark: SparkSession, lake: Path) -> LakeRig:
    return LakeRig(spark, lake, table_config())


def lines(changes: Iterable[Change | bytes]) -> bytes:
    return gzip.compress(b"".join(change if isinstance(change, bytes) else change.line() for change in changes))


def delivery(rig: LakeRig, of_id: str = "replay-1", shown: list[Standing] | None = None) -> Delivery:
    show = shown.append if shown is not None else lambda _: None
    return Delivery(
        rig.settings,
        rig.tables,
        Intake.of(rig.settings),
        of_id,
        name="lakestream test",
        show=show,
        spark=rig.spark,
        clock=rig.clock,
    )


def hand(rig: LakeRig, *portions: Iterable[Change | bytes], of_id: str = "replay-1", repair: bool = False) -> HandOver:
    intake = Intake.of(rig.settings)
    pieces = tuple(
        Piece(name=str(number), address=intake.stage(of_id, str(number), lines(portion)), form="lines")
        for number, portion in enumerate(portions)
    )
    return HandOver(
        id=of_id, what="replay", tables=("things",), stream="archive", at_ms=DAY_MS, repair=repair, pieces=pieces
    )


@contextmanager
def job(rig: LakeRig, owner: Owner | None = None) -> Iterator[None]:
    """A writer that takes in what waits, until the block ends."""
    latency, ended = PausableLatency(rig.latency), threading.Event()
    with rig.pipeline(owner=owner) as pipeline:
        pipeline._latency = latency
        drain = Drain(
            Intake.of(rig.settings),
            rig.tables,
            taking_in(pipeline, latency),
            IntakeSettings(look_every_s=0.05),
        )

        def tend() -> None:
            while not ended.wait(0.01):
                drain.step(is_quiet=True)

        thread = threading.Thread(target=tend)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def tables(rig: LakeRig) -> list[list[dict[str, Any]]]:
    """`current` and `history`, but for when they were written."""
    return [
        [{name: value for name, value in row.items() if name != "_ingest_ts"} for row in rig.rows(f"things/{part}")]
        for part in ("current", "history")
    ]


HISTORY = [[put("a", 1, x=1), put("b", 2, x=1)], [put("a", 3, x=2), remove("b", 4), put("c", 5, x=3)]]


def test_where_no_job_runs_the_command_takes_its_work_in_and_gives_the_tables_back(rig: LakeRig) -> None:
    """The tables are not there yet: the command makes them. A second time nothing changes, and nothing is left over."""
    shown: list[Standing] = []
    with delivery(rig, shown=shown) as first:
        first.hand_over(hand(rig, *HISTORY))
        total = first.wait()
    assert (total.pieces, total.rows, total.history_inserted, total.rejects) == (2, 5, 5, 0)
    assert [(standing.taken_in, standing.handed_over) for standing in shown][-1] == (2, 2)
    assert shown[0].writer is None
    before = tables(rig)
    with delivery(rig) as second:
        second.hand_over(hand(rig, *HISTORY))
        assert second.wait().history_inserted == 0
    assert tables(rig) == before
    assert Intake.of(rig.settings)._store.names("") == []
    rig.run([put("d", 6)])


def test_while_a_job_runs_the_job_takes_the_work_in_and_measures_no_latency_of_it(rig: LakeRig) -> None:
    rig.run([put("z", 9)])
    rig.latency.notes.clear()
    shown: list[Standing] = []
    with job(rig), delivery(rig, shown=shown) as handed:
        handed.hand_over(hand(rig, *HISTORY))
        assert handed.wait().history_inserted == 5
    writer = shown[0].writer
    assert writer is not None
    assert writer.name == "rig"
    assert rig.latency.notes == []


def test_when_the_job_is_gone_the_command_goes_on_itself(rig: LakeRig) -> None:
    """Its lease was never given back: the process that held it is known to be dead."""
    rig.run([put("z", 9)])
    killed = rig.pipeline(owner=dead_process())
    killed.__enter__()
    with delivery(rig) as handed:
        handed.hand_over(hand(rig, *HISTORY))
        assert handed.wait().history_inserted == 5


def test_a_column_altered_by_hand_is_seen_by_its_row_digest_and_mended_by_a_repair_alone(rig: LakeRig) -> None:
    """All changes are handed over again, first plainly, then as a repair."""
    rig.run(*HISTORY)
    whole, key = tables(rig), '{"id":"a"}'
    lake = SparkLakeRows(rig.spark, Lake(rig.settings.lake).of(rig.tables["things"]))
    DeltaTable(rig.path("things/current")).update({"x": "99"}, predicate="id = 'a'")
    for repair in (False, True):
        with delivery(rig) as handed:
            handed.hand_over(hand(rig, *HISTORY, repair=repair))
            handed.wait()
        assert lake.of([key])[key].intact == repair
    assert tables(rig) == whole


def test_a_key_that_was_written_twice_by_hand_is_not_intact(rig: LakeRig) -> None:
    rig.run(*HISTORY)
    lake = SparkLakeRows(rig.spark, Lake(rig.settings.lake).of(rig.tables["things"]))
    path, key = rig.path("things/current"), '{"id":"a"}'
    write_deltalake(path, DeltaTable(path).to_pyarrow_table().filter(pc.field("_key") == key), mode="append")
    assert (lake.of([key])[key].intact, lake.of([key])[key].rows) == (False, 2)


def test_an_interrupted_command_withdraws_what_was_not_taken_in_and_says_how_much_was(rig: LakeRig) -> None:
    """Ctrl-C while it waits for a writer that takes nothing in."""

    def interrupted() -> None:
        with delivery(rig) as handed:
            handed.hand_over(hand(rig, *HISTORY))
            assert handed.standing().writer is not None
            raise KeyboardInterrupt

    with rig.pipeline(), pytest.raises(WithdrawnError, match="0 of 2 pieces are in the lake, the rest was withdrawn"):
        interrupted()
    assert Intake.of(rig.settings)._store.names("") == []


def test_a_piece_that_cannot_be_read_fails_the_command_after_the_others_are_in(rig: LakeRig) -> None:
    work = hand(rig, *HISTORY)
    gone = work.pieces[1].model_copy(update={"address": "pieces/replay-1/none"})
    with delivery(rig) as handed:
        handed.hand_over(work.model_copy(update={"pieces": (work.pieces[0], gone)}))
        with pytest.raises(NotTakenInError, match=r"1 of 2 pieces were not taken in whole, 1: .* is not there"):
            handed.wait()
    assert len(rig.rows("things/history")) == 2


def test_a_reject_among_what_was_handed_over_is_kept_once_however_often_it_is(rig: LakeRig) -> None:
    for of_id in ("first", "second"):
        with delivery(rig, of_id) as handed:
            piece = Piece(
                name="0", address=Intake.of(rig.settings).stage("same", "0", lines([b"junk\n"])), form="lines"
            )
            work = hand(rig, [put("a", 1)], of_id=of_id)
            handed.hand_over(work.model_copy(update={"pieces": (piece,)}))
            handed.wait()
    assert [row["_reason"] for row in rig.rows("rejects")] == ["malformed JSON"]
