"""`lakestream verify`: the parts of a verification, made from the job's configuration."""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pyspark.sql import SparkSession

from config.errors import ConfigurationError
from config.settings import Settings
from config.tables import TableConfig
from streaming_job.aws import client
from streaming_job.operations.lake_rows import SparkLakeRows
from streaming_job.operations.settled import settle
from streaming_job.operations.source_rules import all_rules
from streaming_job.operations.verify import Options, Report, Verification
from streaming_job.pipeline.batch import now_ms
from streaming_job.pipeline.locations import Lake, TableLocations
from streaming_job.pipeline.opening import Tables
from streaming_job.spark import spark_session


def verify(
    settings: Settings, tables: dict[str, TableConfig], options: Options, say: Callable[[str], None]
) -> list[Report]:
    """One report for each table; what an equal one settles is settled."""
    reports = []
    with spark_session("lakestream-verify", settings.spark) as spark:
        verified = verifier(settings, spark, options, say)
        opened = Tables(settings, lambda: spark)
        for table in tables.values():
            began_ms = now_ms()
            report = verified(table, Lake(settings.lake).of(table))
            if report.equal:
                settle(settings, opened, table, began_ms)
            reports.append(report)
    return reports


def verifier(
    settings: Settings, spark: SparkSession, options: Options, say: Callable[[str], None]
) -> Callable[[TableConfig, TableLocations], Report]:
    """Compares a table's items with the rows at a place that may be another than its own."""
    dynamodb = client(settings.aws, "dynamodb", attempts=8, connections=options.segments + 1)
    rules = all_rules(settings)

    def verified(table: TableConfig, places: TableLocations) -> Report:
        say(f"reading {table.table}")
        return Verification(dynamodb, table, rules[table.table], SparkLakeRows(spark, places), options, say).run()

    return verified


def keep(reports: Sequence[Report], file: Path) -> None:
    """The answer and its time, for the dashboard; whole or not at all."""
    half = file.with_name(f".{file.name}.half")
    record = {"at": datetime.now(UTC).isoformat(), "tables": {report.table: report.as_dict() for report in reports}}
    half.write_text(json.dumps(record, indent=2, default=str) + "\n", encoding="utf-8")
    half.replace(file)


def chosen(tables: dict[str, TableConfig], names: list[str]) -> dict[str, TableConfig]:
    """The tables asked for, or all of them."""
    unknown = [name for name in names if name not in tables]
    if unknown:
        raise ConfigurationError(
            f"no table {unknown[0]!r} in the configuration", hint=f"it has {', '.join(sorted(tables))}"
        )
    return {name: tables[name] for name in names or tables}
