"""The job where Spark is reached over Connect alone, as on serverless compute: what is there now, then the end.

A batch is written there by a process of the server's, which is sent the function. It opens the tables and takes their
leases for the batch and gives them back after it, for nobody tells it when the query ends. There is no page to ask for
figures, and what was handed over waits for a job on a machine of its own.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from pyspark.errors import StreamingQueryException
from pyspark.sql import DataFrame, SparkSession

from config.errors import ConfigurationError
from config.settings import Settings
from config.tables import TableConfig
from streaming_job.errors import JobFailedError
from streaming_job.job import reason_of
from streaming_job.latency.book import LatencyBook
from streaming_job.latency.table import known_batches, latency_table, to_arrow
from streaming_job.pipeline.batch import Pipeline
from streaming_job.pipeline.locations import Lake
from streaming_job.pipeline.opening import storage_options
from streaming_job.sources import source_frame

log = logging.getLogger("lakestream.remote")


@dataclass(frozen=True)
class Batches:
    """What is sent to the server: values alone, so that it can be."""

    settings: Settings
    tables: Mapping[str, TableConfig]

    def __call__(self, frame: DataFrame, batch_id: int) -> None:
        spark = frame.sparkSession
        place = Lake(self.settings.lake).shared("latency")
        storage = storage_options(self.settings, str(place))
        figures = latency_table(spark, path=place.path, name=place.name, storage=storage)
        book = LatencyBook(known_batches(figures))
        with Pipeline(spark, self.settings, self.tables, book) as pipeline:
            report = pipeline.process_batch(frame, batch_id)
            pipeline.between_batches()
        if measured := book.take():
            figures.append(to_arrow(measured, datetime.now(UTC)))
        log.info("batch committed", extra={"batch": report.as_dict()})


def run(spark: SparkSession, settings: Settings, tables: Mapping[str, TableConfig], *, available_now: bool) -> None:
    if not available_now:
        raise ConfigurationError(
            "this compute runs what is there now, and ends", hint="add --available-now, or run on a machine of its own"
        )
    query = (
        source_frame(spark, settings)
        .writeStream.foreachBatch(Batches(settings, dict(tables)))
        .option("checkpointLocation", settings.lake.checkpoint)
        .queryName("lakestream")
        .trigger(availableNow=True)
        .start()
    )
    try:
        query.awaitTermination()
    except StreamingQueryException as error:
        raise JobFailedError(
            reason_of(error), hint="mend it and start the job again: it goes on from its checkpoint"
        ) from error
