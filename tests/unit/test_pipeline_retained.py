"""A plan that is made once sees each batch's rows and no other's."""

from pathlib import Path

import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession

from streaming_job.pipeline.retained import RetainedPlan

pytestmark = pytest.mark.spark


class Builds:
    """Counts how often a plan was made."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, rows: DataFrame) -> DataFrame:
        self.made += 1
        return rows.selectExpr("n", "n * 2 AS twice", "concat(text, '!') AS said")


def batch(numbers: range) -> pa.Table:
    return pa.table({"n": pa.array(numbers, pa.int64()), "text": pa.array(map(str, numbers), pa.string())})


def test_one_plan_serves_batches_of_any_size_in_their_order(spark: SparkSession) -> None:
    builds = Builds()
    plan = RetainedPlan(spark, builds)
    for numbers in (range(3), range(10, 11), range(0), range(1_000), range(5)):
        done = plan.run(batch(numbers))
        assert done["n"].to_pylist() == list(numbers)
        assert done["twice"].to_pylist() == [2 * number for number in numbers]
        assert done["said"].to_pylist() == [f"{number}!" for number in numbers]
    assert builds.made == 1
    plan.close()


def test_rows_of_another_shape_get_a_plan_of_their_own(spark: SparkSession) -> None:
    builds = Builds()
    plan = RetainedPlan(spark, builds)
    plan.run(batch(range(2)))
    wider = batch(range(2)).append_column("more", pa.array([1, 2]))
    assert plan.run(wider)["n"].to_pylist() == [0, 1]
    assert builds.made == 2
    plan.close()


def test_no_rows_stay_on_the_disk_after_a_batch(spark: SparkSession) -> None:
    plan = RetainedPlan(spark, Builds())
    plan.run(batch(range(2)))
    assert plan._folder is not None
    folder = Path(plan._folder.name)
    assert list(folder.iterdir()) == []
    plan.close()
    assert not folder.exists()
