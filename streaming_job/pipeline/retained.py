"""Plans that are made once and run for every batch.

For a hundred rows Spark spends more time on analysing, optimising and planning the same expressions anew than on the
rows. So where driver and workers are one machine, the plan reads a file that is swapped beneath it: the same frame,
run again, sees the new batch. Python only hands Arrow batches over; the work on them is Spark's.
"""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import from_arrow_schema

Build = Callable[[DataFrame], DataFrame]


def is_one_machine(spark: SparkSession) -> bool:
    return spark.conf.get("spark.master", "").startswith("local")  # type: ignore[union-attr]


class RetainedPlan:
    """`build` over rows of one schema. It must not shuffle: an exchange would keep the first batch's rows."""

    def __init__(self, spark: SparkSession, build: Build) -> None:
        self._spark = spark
        self._build = build
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._frame: DataFrame | None = None
        self._schema: pa.Schema | None = None
        self._keeps = is_one_machine(spark)

    def run(self, rows: pa.Table) -> pa.Table:
        if not self._keeps:
            return self._build(self._spark.createDataFrame(rows)).toArrow()
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="lakestream-batch-")
        path = Path(self._folder.name) / "rows.arrow"
        _write(path, rows)
        if self._frame is None or rows.schema != self._schema:
            self._schema = rows.schema
            self._frame = self._build(_reading(self._spark, path, rows.schema))
        try:
            return self._frame.toArrow()
        finally:
            path.unlink()

    def close(self) -> None:
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None


def _write(path: Path, rows: pa.Table) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)


def _reading(spark: SparkSession, path: Path, schema: pa.Schema) -> DataFrame:
    parts = spark.sparkContext.defaultParallelism
    name = str(path)

    def read(numbers: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Each part its share of the rows, in their order."""
        for number in (int(value) for batch in numbers for value in batch.column(0).to_numpy()):
            with pa.OSFile(name, "rb") as source:
                rows = pa.ipc.open_stream(source).read_all()
            start, end = rows.num_rows * number // parts, rows.num_rows * (number + 1) // parts
            yield from rows.slice(start, end - start).to_batches()

    return spark.range(0, parts, 1, parts).mapInArrow(read, from_arrow_schema(schema))
