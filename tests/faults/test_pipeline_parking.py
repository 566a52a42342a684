"""One table in trouble: its changes are parked, the others go on; mended, the parked ones drain in order."""

from pathlib import Path

import pytest
from envelopes import Change, put, remove
from lake_rig import CrashAfter, KilledError, LakeRig, dead_process, table_config
from pyspark.sql import SparkSession

from streaming_job.errors import HalfATableError, LeaseHeldError
from streaming_job.pipeline.lease import Owner
from streaming_job.pipeline.steps import Step

pytestmark = pytest.mark.spark


def other(number: int) -> Change:
    return Change({"id": "x"}, number, new={"id": "x", "n": number}, table="others")


def rig(spark: SparkSession, root: Path, **things: object) -> LakeRig:
    return LakeRig(spark, root, table_config("things", **things), table_config("others"))


def test_a_failing_path_parks_its_table_and_does_not_hold_the_others(spark: SparkSession, lake: Path) -> None:
    """The table's folder goes away while the job runs, and comes back."""
    held = rig(spark, lake)
    folder, away = lake / "things", lake / "away"
    with held.pipeline() as pipeline:
        pipeline.process_batch(held.frame([put("a", 1, n=1), other(1)]), 0)
        folder.rename(away)

        broken = pipeline.process_batch(held.frame([put("a", 2, n=2), put("b", 1, n=1), other(2)]), 1)
        assert broken.tables["things"].failure
        assert broken.tables["things"].parked == 2
        assert broken.tables["others"].current_updated == 1
        assert {row["_why"] for row in held.rows("parked", "_why", where="_table = 'things'")} == {
            broken.tables["things"].failure
        }

        # The next ones wait behind them, though it is not yet time to try again.
        held.clock.now_ms += 10
        assert pipeline.process_batch(held.frame([remove("b", 2), other(3)]), 2).tables["things"].parked == 3

        # Nor does a pause in which its lease is due and upkeep looks for it.
        held.clock.now_ms += 61_000
        assert "others" not in pipeline.between_batches()

        folder_left_behind = lake / "left"
        if folder.exists():
            folder.rename(folder_left_behind)
        away.rename(folder)
        held.clock.now_ms += 120_000
        drained = pipeline.between_batches()["things"]

    assert (drained.drained, drained.parked, drained.failure) == (3, 0, None)
    rows = held.rows("things/current", "_key", "_seq", "_deleted", "n")
    assert [(row["_seq"], row["_deleted"], row["n"]) for row in rows] == [
        (put("a", 2).seq, False, 2.0),
        (remove("b", 2).seq, True, None),
    ]
    assert len(held.rows("things/history")) == 4
    assert held.rows("parked") == []


def test_a_bad_rule_parks_its_table_and_a_job_with_the_mended_rule_drains_it(spark: SparkSession, lake: Path) -> None:
    """`n` is a double in the table; the rule that declares it a date cannot be served."""
    good = rig(spark, lake)
    good.run([put("a", 1, n=1), other(1)])
    bad = rig(spark, lake, columns={"n": {"type": "date"}})
    bad.tables["others"] = table_config("others")
    (report,) = bad.run([put("a", 2, n=2), other(2)])
    assert report.tables["things"].parked == 1
    assert "things" in str(report.tables["things"].failure) or "n" in str(report.tables["things"].failure)
    assert report.tables["others"].failure is None

    mended = rig(spark, lake)
    (report,) = mended.run([put("a", 3, n=3)])
    assert (report.tables["things"].drained, report.tables["things"].parked) == (1, 0)
    assert [row["n"] for row in mended.rows("things/current", "n")] == [3.0]
    assert len(mended.rows("things/history", "_seq")) == 3


def test_a_second_job_is_refused_before_it_reads_anything(spark: SparkSession, lake: Path) -> None:
    held = rig(spark, lake)
    with (
        held.pipeline(owner=Owner("the first job", "elsewhere", 7)),
        pytest.raises(LeaseHeldError, match=r"the first job \(host elsewhere, process 7\)"),
    ):
        held.pipeline().__enter__()


def test_crashes_while_parking_and_while_draining_lose_and_repeat_nothing(spark: SparkSession, lake: Path) -> None:
    """Killed after parking, before the offsets go on; then killed after draining into `current`, before unparking."""
    rig(spark, lake).run([put("a", 1, n=1)])
    bad = rig(spark, lake, columns={"n": {"type": "date"}})
    batch = bad.frame([put("a", 2, n=2), put("b", 1, n=1)])
    with pytest.raises(KilledError):
        bad.pipeline(CrashAfter(Step.PARK), dead_process()).__enter__().process_batch(batch, 1)
    with bad.pipeline() as pipeline:
        assert pipeline.process_batch(batch, 1).tables["things"].parked == 2

    mended = rig(spark, lake)
    again = mended.frame([put("a", 3, n=3)])
    with pytest.raises(KilledError):
        mended.pipeline(CrashAfter(Step.CURRENT), dead_process()).__enter__().process_batch(again, 2)
    with mended.pipeline() as pipeline:
        report = pipeline.process_batch(again, 2).tables["things"]
    assert (report.drained, report.parked) == (2, 0)
    assert [(row["_key"], row["n"]) for row in mended.rows("things/current", "_key", "n")] == [
        ('{"id":"a"}', 3.0),
        ('{"id":"b"}', 1.0),
    ]
    assert len(mended.rows("things/history", "_seq")) == 4


@pytest.mark.parametrize(("lost", "kept"), [("current", "history"), ("history", "current")])
def test_half_a_table_that_is_lost_stops_the_start_and_nothing_is_made_in_its_place(
    spark: SparkSession, lake: Path, lost: str, kept: str
) -> None:
    half = rig(spark, lake)
    half.run([put("a", 1, n=1)])
    (lake / "things" / lost).rename(lake / "away")
    with pytest.raises(HalfATableError, match=rf"things/{lost} is not there, but .*/things/{kept} holds 1 rows"):
        half.pipeline().__enter__()
    assert not (lake / "things" / lost).exists()
