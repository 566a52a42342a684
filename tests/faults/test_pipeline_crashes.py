"""A crash after each step of a batch, and the batch run again: the tables come out as if there had been none."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from envelopes import Change, put, remove
from lake_rig import CrashAfter, KilledError, LakeRig, dead_process, table_config
from pyspark.sql import SparkSession

from streaming_job.pipeline.steps import Step

FIRST = [put("a", 1, n=1), put("b", 1, n=2), Change({"id": "x"}, 1, new={"id": "x"}, table="others")]
SECOND: list[Change | bytes] = [
    put("a", 2, n=3, appeared="x"),
    put("a", 2, n=3, appeared="x"),
    b"{not json",
    remove("b", 2),
    put("c", 1, n="no number"),
    Change({"id": "x"}, 2, new={"id": "x", "n": 5}, table="others"),
]

pytestmark = pytest.mark.spark


def rig(spark: SparkSession, root: Path) -> LakeRig:
    return LakeRig(spark, root, table_config("things"), table_config("others"))


@pytest.fixture(scope="module")
def begun(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake that holds the first batch."""
    root = tmp_path_factory.mktemp("begun")
    rig(spark, root).run(FIRST)
    return root


@pytest.fixture(scope="module")
def undisturbed(spark: SparkSession, begun: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    calm = rig(spark, copied(begun, tmp_path_factory.mktemp("undisturbed")))
    calm.run(SECOND)
    return calm.everything()


def copied(begun: Path, root: Path) -> Path:
    shutil.copytree(begun, root, dirs_exist_ok=True)
    return root


@pytest.mark.parametrize("step", [step for step in Step if step not in {Step.PARK, Step.DRAIN}])
def test_a_crash_after_any_step_and_the_batch_run_again_leave_the_same_tables(
    spark: SparkSession, lake: Path, begun: Path, undisturbed: Mapping[str, Any], step: Step
) -> None:
    disturbed = rig(spark, copied(begun, lake))
    second = disturbed.frame(SECOND)
    crash = CrashAfter(step)
    with pytest.raises(KilledError):
        # Nothing is closed: the lease stays behind, held by a process that is gone.
        disturbed.pipeline(crash, dead_process()).__enter__().process_batch(second, 1)
    with disturbed.pipeline() as pipeline:
        pipeline.process_batch(second, 1)
    assert disturbed.everything() == undisturbed


def test_a_batch_run_again_under_another_number_changes_nothing(
    spark: SparkSession, lake: Path, undisturbed: Mapping[str, Any]
) -> None:
    """A job restored from an older checkpoint numbers other batches the same: numbers must not matter."""
    again = rig(spark, lake)
    second, first = again.frame(SECOND), again.frame(FIRST)
    with again.pipeline() as pipeline:
        for frame, number in ((first, 0), (second, 1), (first, 1), (second, 0), (second, 7)):
            pipeline.process_batch(frame, number)
    assert again.everything() == undisturbed
    names = [note["batch"] for note in again.latency.notes if note["table"] == "things"]
    assert names[0] == names[2]
    assert names[0] != names[1]
    assert names[1] == names[3] == names[4]
