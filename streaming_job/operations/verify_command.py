"""`lakestream verify`: the parts of a verification, made from the job's configuration."""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from config.errors import ConfigurationError
from config.settings import Settings
from config.tables import TableConfig
from streaming_job.aws import client
from streaming_job.operations.lake_rows import SparkLakeRows
from streaming_job.operations.source_rules import source_rules
from streaming_job.operations.verify import Options, Report, Verification
from streaming_job.pipeline.locations import Lake
from streaming_job.spark import spark_session


def verify(
    settings: Settings, tables: dict[str, TableConfig], options: Options, say: Callable[[str], None]
) -> list[Report]:
    """One report for each table."""
    dynamodb = client(settings.aws, "dynamodb", attempts=8, connections=options.segments + 1)
    rules = {name: source_rules(settings, name) for name in tables}
    reports = []
    with spark_session("lakestream-verify", settings.spark) as spark:
        for name, table in tables.items():
            say(f"reading {name}")
            lake = SparkLakeRows(spark, Lake(settings.lake).of(table))
            reports.append(Verification(dynamodb, table, rules[name], lake, options, say).run())
    return reports


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
