"""What speaks against a table, and what a comparison that found it equal settles: the bridge's marks go."""

import logging
from typing import Final

from pyspark.sql.types import StructType

from config.settings import Settings
from config.tables import TableConfig
from streaming_job.aws import client
from streaming_job.objects import Bucket, BucketUnreadableError
from streaming_job.operations.unproven_marks import marks_of
from streaming_job.pipeline.locations import Lake
from streaming_job.pipeline.merge import TableSpec
from streaming_job.pipeline.opening import Tables
from streaming_job.pipeline.order import UNPROVEN_PROPERTY
from streaming_job.pipeline.properties import read

log = logging.getLogger("lakestream.verify")

_NO_MARK: Final = ""


def doubts(settings: Settings, tables: Tables, config: TableConfig) -> list[str]:
    """What speaks for changes of the table having been lost: the job's note, and the bridge's marks."""
    noted = read(tables.properties(Lake(settings.lake).of(config).current).get(UNPROVEN_PROPERTY))
    found = [noted["why"]] if noted is not None else []
    if settings.bucket is None:
        return found
    try:
        marks = marks_of(Bucket(client(settings.aws, "s3"), settings.bucket.name), config.table)
    except BucketUnreadableError as error:
        return [*found, f"marks under unproven/ cannot be read: {error.what}"]
    return [*found, *map(str, marks)]


def settle(settings: Settings, tables: Tables, config: TableConfig, began_ms: int) -> None:
    """`began_ms`: when it began to be compared; what was noted later is not settled by it."""
    place = Lake(settings.lake).of(config).current
    noted = read(tables.properties(place).get(UNPROVEN_PROPERTY))
    if noted is not None and noted["since_ms"] < began_ms:
        table = tables.open(config.lake.engine, TableSpec(place, StructType()))
        table.set_properties({UNPROVEN_PROPERTY: _NO_MARK})
    if settings.bucket is not None:
        _strike_off(Bucket(client(settings.aws, "s3"), settings.bucket.name), config.table, began_ms)


def _strike_off(bucket: Bucket, table: str, began_ms: int) -> None:
    """Who may compare may not everywhere delete: then the marks are for a person to take away."""
    try:
        for mark in marks_of(bucket, table):
            if mark.marked_ms < began_ms:
                bucket.delete(mark.name)
    except BucketUnreadableError as error:
        log.warning("marks under unproven/ stay", extra={"table": table, "reason": str(error)})
