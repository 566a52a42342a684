"""`lakestream verify`: the parts of a verification, made from the job's configuration."""

import json
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from pyspark.sql import SparkSession

from bridge_lambda.envelope import origin_of
from bridge_lambda.rules import TableRules
from config.errors import ConfigurationError
from config.settings import Settings
from config.tables import TableConfig
from streaming_job.aws import client
from streaming_job.latency.dashboard.verify_record import UNREADABLE, summary
from streaming_job.operations.in_flight import NO_STREAM, InFlight, StreamInFlight
from streaming_job.operations.lake_rows import lake_rows
from streaming_job.operations.settled import doubts, settle
from streaming_job.operations.source_rules import rules_of
from streaming_job.operations.verify import Options, Report, Verification
from streaming_job.pipeline.batch import now_ms
from streaming_job.pipeline.locations import Lake, TableLocations
from streaming_job.pipeline.opening import Tables
from streaming_job.pipeline.order import Placing
from streaming_job.spark import spark_session


def verify(
    settings: Settings, tables: dict[str, TableConfig], options: Options, say: Callable[[str], None]
) -> list[Report]:
    """One report for each table; what an equal one settles is settled."""
    reports = []
    with ExitStack() as cleanup:
        spark = cache(lambda: cleanup.enter_context(spark_session("lakestream-verify", settings.spark)))
        verified, opened = verifier(settings, tables, spark, options, say), Tables(settings, spark)
        for table in tables.values():
            began_ms, known = now_ms(), doubts(settings, opened, table)
            report = replace(verified(table, Lake(settings.lake).of(table)), doubts=known)
            if report.equal:
                settle(settings, opened, table, began_ms)
            reports.append(report)
    return reports


def verifier(
    settings: Settings,
    tables: Collection[str],
    spark: Callable[[], SparkSession],
    options: Options,
    say: Callable[[str], None],
) -> Callable[[TableConfig, TableLocations], Report]:
    """Compares the items of one of these tables with the rows at a place that may be another than its own."""
    dynamodb = client(settings.aws, "dynamodb", attempts=8, connections=options.segments + 1)
    rules = rules_of(settings, tables)

    def verified(table: TableConfig, places: TableLocations) -> Report:
        say(f"reading {table.table}")
        of_table, lake = rules[table.table], lake_rows(settings, table, places, spark)
        in_flight = _in_flight(settings, dynamodb, table, of_table, say)
        return Verification(dynamodb, table, of_table, lake, options, say, in_flight).run()

    return verified


def _in_flight(
    settings: Settings, dynamodb: Any, table: TableConfig, rules: TableRules, say: Callable[[str], None]
) -> InFlight:
    try:
        arn = dynamodb.describe_table(TableName=table.table)["Table"].get("LatestStreamArn")
    except (ClientError, BotoCoreError):
        # Who may only scan settles what he can without.
        arn = None
    if arn is None:
        return NO_STREAM
    generation, placing = origin_of(arn).generation, Placing(table.lake)

    def version(sequence: str, created_ms: int | None) -> str:
        return f"{placing.of(generation, created_ms)}-{sequence}"

    return StreamInFlight(client(settings.aws, "dynamodbstreams"), arn, rules, version, say)


def keep(reports: Sequence[Report], file: Path, configured: Collection[str]) -> None:
    """Each configured table's last answer and its time, for the dashboard; whole or not at all."""
    half = file.with_name(f".{file.name}.half")
    at = datetime.now(UTC).isoformat()
    record = {"tables": _kept(file, configured) | {report.table: report.as_dict() | {"at": at} for report in reports}}
    half.write_text(json.dumps(record, indent=2, default=str) + "\n", encoding="utf-8")
    half.replace(file)


def _kept(file: Path, configured: Collection[str]) -> dict[str, Any]:
    """What other runs found; nothing of a record that cannot be read."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        summary(record)
    except UNREADABLE:
        return {}
    return {table: report for table, report in record["tables"].items() if table in configured}


def chosen(tables: dict[str, TableConfig], names: list[str]) -> dict[str, TableConfig]:
    """The tables asked for, or all of them."""
    unknown = [name for name in names if name not in tables]
    if unknown:
        raise ConfigurationError(
            f"no table {unknown[0]!r} in the configuration", hint=f"it has {', '.join(sorted(tables))}"
        )
    return {name: tables[name] for name in names or tables}
