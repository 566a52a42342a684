"""A streaming job as small as can be, to be run as a process and killed: Kinesis to one folder a batch.

`python -m tests.faults.kinesis_job SETTINGS.json`; settings: endpoint, stream, checkpoint, out, master, options, once.
Each batch's folder is written anew when the batch is run again: rows twice or missing show as wrong batches.
"""

import json
import sys
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame

from streaming_job.kinesis import LakestreamKinesis
from streaming_job.spark import build_session
from tests.faults.kinesis_servers import REGION


def main(settings: dict[str, Any]) -> None:
    spark = build_session("kinesis-job", settings.get("conf"), master=settings.get("master", "local[2]"))
    spark.sparkContext.setLogLevel("ERROR")
    spark.dataSource.register(LakestreamKinesis)
    out = Path(settings["out"])

    def write(frame: DataFrame, batch: int) -> None:
        frame.selectExpr(
            "partitionKey", "cast(data AS string) data", "shardId", "sequenceNumber", "approximateArrivalTimestamp"
        ).write.mode("overwrite").json(str(out / f"batch={batch}"))

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
