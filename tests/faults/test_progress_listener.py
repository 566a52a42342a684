"""Spark's progress reaches health and metrics, by the one text that Spark writes of it."""

from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming.listener import QueryProgressEvent

from streaming_job.health import Health, State
from streaming_job.latency.book import LatencyBook
from streaming_job.metrics import JobMetrics
from streaming_job.progress_listener import ProgressListener
from tests.support.local_workers import until

pytestmark = pytest.mark.spark


def test_a_progress_is_taken_whole_and_never_read_field_by_field(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PySpark's reading of it, which costs as much as a batch, is not come by."""

    def refused(_: Any) -> QueryProgressEvent:
        raise AssertionError("field by field")

    def nothing(_frame: DataFrame, _batch: int) -> None: ...

    monkeypatch.setattr(QueryProgressEvent, "fromJObject", refused)
    health = Health(unhealthy_after_s=60)
    listener = ProgressListener(JobMetrics(LatencyBook(), health), health)
    spark.streams.addListener(listener)
    try:
        rate = spark.readStream.format("rate").load().writeStream.foreachBatch(nothing)
        query = rate.option("checkpointLocation", str(tmp_path)).start()
        try:
            until(lambda: health.verdict().state is State.READY, "a progress")
        finally:
            query.stop()
    finally:
        spark.streams.removeListener(listener)
