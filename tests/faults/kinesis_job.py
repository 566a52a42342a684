"""A streaming job as small as can be, to be run as a process and killed: Kinesis to one folder a batch.

`python -m tests.faults.kinesis_job SETTINGS.json`; settings: endpoint, stream, checkpoint, out, master, options, once.
Each batch's folder is written anew when the batch is run again: rows twice or missing show as wrong batches.
With `lake` the records are envelopes, and each batch goes through the pipeline into tables there as well.
"""

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lake_rig import LatencyNotes, settings_for, table_config
from pyspark.sql import DataFrame, SparkSession

from streaming_job.kinesis import LakestreamKinesis
from streaming_job.pipeline.batch import Pipeline
from streaming_job.spark import build_session
from tests.faults.kinesis_servers import REGION


def main(settings: dict[str, Any]) -> None:
    spark = build_session("kinesis-job", settings.get("conf"), master=settings.get("master", "local[2]"))
    spark.sparkContext.setLogLevel("ERROR")
    spark.dataSource.register(LakestreamKinesis)
    with ExitStack() as cleanup:
        pipeline = cleanup.enter_context(tables(spark, Path(settings["lake"]))) if "lake" in settings else None
        stream(spark, settings, pipeline)


def tables(spark: SparkSession, lake: Path) -> Pipeline:
    config = table_config()
    return Pipeline(spark, settings_for(lake, [config.table]), {config.table: config}, LatencyNotes())


def stream(spark: SparkSession, settings: dict[str, Any], pipeline: Pipeline | None) -> None:
    out = Path(settings["out"])

    def write(frame: DataFrame, batch: int) -> None:
        frame.selectExpr(
            "partitionKey", "cast(data AS string) data", "shardId", "sequenceNumber", "approximateArrivalTimestamp"
        ).write.mode("overwrite").json(str(out / f"batch={batch}"))
        if pipeline is not None:
            pipeline.process_batch(frame, batch)

    rows = spark.readStream.format("lakestream_kinesis").options(
        streamName=settings["stream"],
        region=REGION,
        endpointUrl=settings["endpoint"],
        initialPosition="trim_horizon",
        **settings.get("options", {}),
    )
    query = rows.load().writeStream.foreachBatch(write).option("checkpointLocation", settings["checkpoint"])
    (query.trigger(availableNow=True) if settings.get("once") else query).start().awaitTermination()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
