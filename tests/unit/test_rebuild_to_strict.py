"""A table whose rebuild is strict: what that one rejects can be redriven, though the job started under other rules."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
from envelopes import DAY_MS, Change, put
from lake_rig import table_config
from lanes_rig import LanesRig
from pyspark.errors import PySparkException
from pyspark.sql.types import StructType
from rig_without_spark import RigWithoutSpark

from streaming_job.pipeline import current
from streaming_job.pipeline.batch import Pipeline
from streaming_job.pipeline.merge import TableSpec
from streaming_job.pipeline.rebuild import Rebuild, State
from streaming_job.pipeline.requests import REBUILD, ask

COLUMNS = {"n": {"type": "bigint"}}
MISFIT = put("a", 2, n="many")


class ServerlessFrame:
    """Decodes where it is asked to, and keeps nothing between queries."""

    def __init__(self, rows: pa.Table) -> None:
        self._rows = rows

    def select(self, *columns: str) -> Self:
        return type(self)(self._rows.select(columns))

    def mapInArrow(  # noqa: N802 - Spark's name
        self, decoded: Callable[[Iterator[pa.RecordBatch]], Iterable[pa.RecordBatch]], _schema: StructType
    ) -> Self:
        return type(self)(pa.Table.from_batches(decoded(iter(self._rows.to_batches()))))

    def persist(self) -> None:
        raise PySparkException("not supported on serverless compute")

    def toArrow(self) -> pa.Table:  # noqa: N802 - Spark's name
        return self._rows


def begin_strict(rig: RigWithoutSpark) -> LanesRig:
    beside = LanesRig(rig.root, table_config(strict=True, columns=COLUMNS))
    rules = beside.config.lake.model_dump(mode="json", by_alias=True)
    rebuild = Rebuild(DAY_MS, State.FILLING, "snapshot", rules)
    beside.tables.open("rust", current.spec(beside.places.rebuilt, StructType(), rebuild.as_properties()))
    return beside


def take_up(rig: RigWithoutSpark, beside: LanesRig, pipeline: Pipeline) -> None:
    ask(beside.tables.open("rust", TableSpec(beside.places.current, StructType())), REBUILD, rig.clock())
    rig.clock.now_ms += 6_000
    pipeline.between_batches()


def promote(beside: LanesRig) -> None:
    rebuild = Rebuild.of(beside.tables.properties(beside.places.rebuilt))
    assert rebuild is not None
    replace(rebuild, state=State.PROMOTING).keep(
        beside.tables.open("rust", TableSpec(beside.places.rebuilt, StructType()))
    )


def frame(rig: RigWithoutSpark, change: Change) -> Any:
    return ServerlessFrame(rig.frame([change]))


def test_a_running_job_keeps_the_bytes_of_what_a_strict_rebuild_rejects(tmp_path: Path) -> None:
    rig = RigWithoutSpark(tmp_path, table_config(columns=COLUMNS))
    with rig.pipeline() as pipeline:
        pipeline.process_batch(rig.frame([put("a", 1, n=1)]), 0)
        take_up(rig, begin_strict(rig), pipeline)
        pipeline.process_batch(rig.frame([MISFIT]), 1)
    (reject,) = rig.rows("rejects", "_data", "_reason")
    assert reject == {"_data": MISFIT.line(), "_reason": "strict: no column takes the value at /n"}


def test_so_does_one_whose_batches_are_decoded_where_their_rows_are_before_and_after_it_is_promoted(
    tmp_path: Path,
) -> None:
    later = put("a", 3, n="more")
    source = {"stream": "s", "connector": "databricks"}
    rig = RigWithoutSpark(tmp_path, table_config(columns=COLUMNS), source=source)
    beside = begin_strict(rig)
    with rig.pipeline() as pipeline:
        pipeline.process_batch(frame(rig, MISFIT), 0)
        promote(beside)
        rig.clock.now_ms += 6_000
        pipeline.between_batches()
        pipeline.process_batch(frame(rig, later), 1)
    assert [reject["_data"] for reject in rig.rows("rejects", "_data")] == [MISFIT.line(), later.line()]
