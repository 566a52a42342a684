"""Changes to rows of `current`: by the columns the table has, and by new ones only when a value has none.

The usual batch brings nothing new. It goes through the plan that stands, once; a value at a path that has no column
shows in `_rescued`, and only then the batch is looked at for columns to add.
"""

from collections.abc import Callable
from typing import Protocol

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StructType

from streaming_job.pipeline import current
from streaming_job.pipeline.changes import restored
from streaming_job.pipeline.retained import RetainedPlan
from streaming_job.pipeline.schema_log import rescued_paths


class Plan(Protocol):
    """How changes become columns."""

    @property
    def schema(self) -> StructType:
        """Every column of the item that the table will have: keys and flattened, known and new."""

    def apply(self, changes: DataFrame) -> DataFrame: ...


class Flattening(Protocol):
    def standing(self, known: StructType | None) -> Plan:
        """For the columns that are known."""

    def plan(self, changes: DataFrame, known: StructType | None) -> Plan:
        """With columns for the paths these changes bring. Runs a job."""


class Columnar:
    def __init__(self, spark: SparkSession, flattener: Flattening) -> None:
        self._spark = spark
        self._flattener = flattener
        self._standing: tuple[Plan, RetainedPlan] | None = None
        self._without_column: set[str] = set()

    def rows(self, changes: pa.Table, present: StructType) -> tuple[pa.Table, StructType]:
        """Rows of `current` without their time, and the item's columns the table must have to take them."""
        known = current.item_columns(present)
        plan = self._flattener.standing(known)
        rows = self._run(plan, changes)
        unknown = rescued_paths(rows).keys() - self._without_column
        if unknown:
            learnt = self._flattener.plan(restored(self._spark.createDataFrame(changes)), known)
            if learnt.schema != plan.schema:
                plan, rows = learnt, self._run(learnt, changes)
            # What was looked at and got no column never will: it does not fit its column, or there are too many.
            self._without_column |= rescued_paths(rows).keys()
        return rows, current.item_columns(plan.schema)

    def close(self) -> None:
        if self._standing is not None:
            self._standing[1].close()
            self._standing = None

    def _run(self, plan: Plan, changes: pa.Table) -> pa.Table:
        if self._standing is None or self._standing[0] is not plan:
            self.close()
            self._standing = plan, RetainedPlan(self._spark, _of(plan))
        return self._standing[1].run(changes)


def _of(plan: Plan) -> Callable[[DataFrame], DataFrame]:
    columns = current.item_columns(plan.schema)
    return lambda collected: current.rows(plan.apply(restored(collected)), columns)
