"""From a configuration file to a running job."""

import logging
import time
from contextlib import ExitStack
from pathlib import Path

from pyspark.sql import SparkSession

from config.errors import ConfigurationError
from config.settings import Settings, load_settings
from config.tables import TableConfig, load_tables
from streaming_job import checkpoint, remote
from streaming_job.aws import client
from streaming_job.health import Health
from streaming_job.http import HttpServer, application
from streaming_job.job import Job
from streaming_job.latency.book import LatencyBook
from streaming_job.latency.export import CloudWatchExport, ExportedLatencyTable
from streaming_job.latency.table import LatencyFlusher, known_batches, latency_table
from streaming_job.metrics import JobMetrics
from streaming_job.pipeline.batch import Pipeline
from streaming_job.pipeline.intake import Intake
from streaming_job.pipeline.intake_drain import Drain, PausableLatency, TakeIn, taking_in
from streaming_job.pipeline.locations import Lake
from streaming_job.pipeline.opening import storage_options
from streaming_job.spark import spark_session, speaks_connect
from streaming_job.warmup import warm_up

log = logging.getLogger("lakestream.main")


def run(config: Path, *, available_now: bool = False) -> None:
    """The job of one configuration file; what is wrong with it or the checkpoint is said before Spark is started."""
    settings = load_settings(config)
    tables = configured_tables(settings)
    checkpoint.check(settings.lake.checkpoint)
    started = time.monotonic()
    with spark_session("lakestream", settings.spark) as spark:
        if speaks_connect(spark):
            remote.run(spark, settings, tables, available_now=available_now)
        else:
            _run_with(spark, settings, tables, available_now=available_now, started=started)


def configured_tables(settings: Settings) -> dict[str, TableConfig]:
    known = load_tables(settings.tables_dir)
    missing = [table for table in settings.tables if table not in known]
    if missing:
        raise ConfigurationError(
            f"tables: no rules file for {', '.join(missing)} in {settings.tables_dir}",
            hint=f"there are files for {', '.join(sorted(known)) or 'no table'}",
        )
    return {table: _in_its_home(known[table], settings) for table in settings.tables}


def _in_its_home(table: TableConfig, settings: Settings) -> TableConfig:
    """A catalog's tables are Spark's to write, whatever engine the rules choose for tables by path."""
    if settings.lake.root is not None:
        return table
    return table.model_copy(update={"lake": table.lake.model_copy(update={"engine": "spark"})})


def _run_with(
    spark: SparkSession, settings: Settings, tables: dict[str, TableConfig], *, available_now: bool, started: float
) -> None:
    place = Lake(settings.lake).shared("latency")
    storage = storage_options(settings, str(place))
    figures = latency_table(spark, path=place.path, name=place.name, storage=storage)
    book = LatencyBook(known_batches(figures))
    health = Health(settings.http.unhealthy_after_s)
    metrics = JobMetrics(book, health)

    def flush_failed(error: Exception) -> None:
        metrics.latency_failures.inc()
        log.warning("latency figures not written, kept for the next flush", extra={"reason": str(error)})

    with ExitStack() as cleanup:
        server = HttpServer(application(metrics.registry, health), settings.http)
        server.start()
        cleanup.callback(server.stop)
        if settings.cloudwatch:
            export = _cloudwatch_export(settings, metrics, health)
            export.start()
            cleanup.callback(export.stop)
            figures = ExportedLatencyTable(figures, export)
        flusher = LatencyFlusher(book, figures, flush_failed)
        flusher.start()
        cleanup.callback(flusher.stop)
        latency = PausableLatency(book)
        pipeline = cleanup.enter_context(Pipeline(spark, settings, tables, latency))
        drain = _drain(settings, tables, taking_in(pipeline, latency))
        warm_up(spark, settings, tables)
        log.info("ready to stream", extra={"url": server.url, "seconds": round(time.monotonic() - started, 1)})
        job = Job(spark, settings, pipeline, drain=drain, metrics=metrics, health=health)
        job.run(available_now=available_now)


def _drain(settings: Settings, tables: dict[str, TableConfig], take_in: TakeIn) -> Drain | None:
    """None where there is no place to hand work over: the commands that need one say how to get it."""
    try:
        intake = Intake.of(settings)
    except ConfigurationError as error:
        log.info("nothing can be handed over to this job", extra={"reason": str(error)})
        return None
    return Drain(intake, tables, take_in, settings.intake)


def _cloudwatch_export(settings: Settings, metrics: JobMetrics, health: Health) -> CloudWatchExport:
    def failed(error: Exception) -> None:
        log.warning("figures not sent to CloudWatch, kept for the next minute", extra={"reason": str(error)})

    return CloudWatchExport(client(settings.aws, "cloudwatch"), metrics, health, failed)
