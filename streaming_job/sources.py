"""Where the job's rows come from, by `source.connector`: the same columns from every one of them."""

from pyspark.sql import DataFrame, SparkSession

from config.limits import KINESIS_RETENTION_H_MAX
from config.settings import Settings
from streaming_job.aws import emulator_credentials
from streaming_job.files.auto_loader import auto_loader_frame
from streaming_job.spark import on_databricks


def source_frame(spark: SparkSession, settings: Settings, *, spool_folder: str | None = None) -> DataFrame:
    """`spool_folder`: where our own source may leave a batch's rows for who takes them from there."""
    match settings.source.connector:
        case "databricks":
            options = _kinesis_options(settings) | settings.source.options
            return spark.readStream.format("kinesis").options(**options).load()
        case "lakestream":
            from streaming_job.kinesis import LakestreamKinesis  # noqa: PLC0415 - not there on Databricks, nor needed

            spark.dataSource.register(LakestreamKinesis)
            spool = _read_on_the_driver(spool_folder) if spool_folder else {}
            options = _kinesis_options(settings) | _ours(settings) | spool | settings.source.options
            return spark.readStream.format(LakestreamKinesis.name()).options(**options).load()
        case "files" if on_databricks():
            return auto_loader_frame(spark, settings)
        case "files":
            from streaming_job.files.options import FilesOptions  # noqa: PLC0415 - as above
            from streaming_job.files.reader import LakestreamFiles  # noqa: PLC0415

            spark.dataSource.register(LakestreamFiles)
            options = FilesOptions.of(settings).as_spark_options()
            return spark.readStream.format(LakestreamFiles.name()).options(**options).load()


def _kinesis_options(settings: Settings) -> dict[str, str]:
    source = settings.source
    optional = {
        "registeredConsumerId": source.consumer_name,
        "serviceCredential": source.service_credential,
        "endpointUrl": settings.aws.endpoint,
    }
    return {
        "streamName": source.stream,
        "region": settings.aws.region,
        "initialPosition": source.starting_position,
        "consumerMode": source.consumer_mode,
        # Neither source refuses a loss unless it is told to, on Databricks the default is to go on.
        "failOnDataLoss": str(source.fail_on_data_loss).lower(),
        **{name: value for name, value in optional.items() if value is not None},
    }


def _read_on_the_driver(spool_folder: str) -> dict[str, str]:
    """Rows that are wanted on the driver are read there, however old: executors would only carry them there."""
    return {"spoolFolder": spool_folder, "catchUpThreshold": f"{KINESIS_RETENTION_H_MAX}h"}


def _ours(settings: Settings) -> dict[str, str]:
    keys = emulator_credentials(settings.aws)
    return {
        "maxRecordsPerTrigger": str(settings.source.batch_rows_max),
        "maxBytesPerTrigger": str(settings.source.batch_bytes_max),
        **({"awsAccessKey": keys["aws_access_key_id"], "awsSecretKey": keys["aws_secret_access_key"]} if keys else {}),
    }
