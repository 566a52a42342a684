"""The archive by Databricks' Auto Loader: the configuration of our own source in its words, its rows in our columns.

Its `text` format gives lines without their numbers; a line is known by its object and its bytes.
"""

from datetime import UTC, datetime

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - as everybody calls it

from config.settings import Settings
from streaming_job.files.options import UNPACKED, archive_of
from streaming_job.kinesis.option_values import initial_position


def auto_loader_frame(spark: SparkSession, settings: Settings, *, source: str = "cloudFiles") -> DataFrame:
    """`source` is another one only where there is no Auto Loader: Spark's own file stream has the same columns."""
    lines = spark.readStream.format(source).schema("value string").options(**auto_loader_options(settings))
    return rows_of_lines(lines.load(archive_paths(settings)), settings.source.stream)


def rows_of_lines(lines: DataFrame, stream: str) -> DataFrame:
    return lines.where("trim(value) != ''").select(
        F.lit("").alias("partitionKey"),
        # The text format hands over a line's bytes as they are, whether or not they are UTF-8.
        F.col("value").cast("binary").alias("data"),
        F.lit(stream).alias("stream"),
        F.col("_metadata.file_path").alias("shardId"),
        F.lit("0").alias("sequenceNumber"),
        F.col("_metadata.file_modification_time").alias("approximateArrivalTimestamp"),
    )


def auto_loader_options(settings: Settings) -> dict[str, str]:
    source = settings.source
    options = {
        "cloudFiles.format": "text",
        "cloudFiles.maxFilesPerTrigger": str(source.files.objects_max),
        "cloudFiles.maxBytesPerTrigger": f"{max(1, source.batch_bytes_max // UNPACKED)}b",
        # Days and hours are no columns of ours.
        "cloudFiles.partitionColumns": "",
        "ignoreMissingFiles": str(not source.fail_on_data_loss).lower(),
    }
    start = initial_position(source.starting_position)
    if start.kind == "latest":
        options["cloudFiles.includeExistingFiles"] = "false"
    if start.kind == "at_timestamp":
        options["modifiedAfter"] = f"{datetime.fromtimestamp(start.at_ms / 1000, UTC):%Y-%m-%d %H:%M:%S.%f} UTC+0"
    return options | source.options


def archive_paths(settings: Settings) -> str:
    bucket, prefixes = archive_of(settings)
    names = ",".join(prefix.rstrip("/") for prefix in prefixes)
    return f"s3://{bucket.name}/{names if len(prefixes) == 1 else f'{{{names}}}'}/"
