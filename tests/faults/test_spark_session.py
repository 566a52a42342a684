"""The session we start: what its processes take from where."""

import os
from collections.abc import Iterator

import pyarrow as pa
import pyspark
from pyspark.sql import SparkSession


def test_a_python_process_of_sparks_takes_the_installed_pyspark_with_its_byte_code(spark: SparkSession) -> None:
    """Read from the zip beside it, it is compiled anew in every process. What we start inherits no home of Spark."""

    def origin(parts: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyspark  # noqa: PLC0415 - the worker's

        for _ in parts:
            yield pa.RecordBatch.from_pydict({"file": [pyspark.__file__]})

    assert spark.range(1).mapInArrow(origin, "file string").first() == (pyspark.__file__,)
    assert "lakestream-spark-" not in os.environ.get("SPARK_HOME", "")
