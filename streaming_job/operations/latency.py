"""`lakestream latency`: percentiles of each hop over any time, merged from the minutes of the table `latency`."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.table import Table as RichTable

from config.errors import ConfigurationError
from config.settings import Settings, load_settings

if TYPE_CHECKING:
    import pyarrow as pa

    from streaming_job.latency.sketches import HopSketch
    from streaming_job.pipeline.locations import Location

EXIT_CODES: Final = "Exit codes: 0 shown, also when nothing was measured; 1 the table cannot be read; 2 wrong usage."


@dataclass(frozen=True, slots=True, kw_only=True)
class HopFigures:
    """One hop of one table over the time asked for."""

    table: str
    hop: str
    resolution_ms: int
    changes: int
    negative: int
    mean_ms: float
    min_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float


@dataclass(frozen=True, slots=True)
class Span:
    """Minutes from `since` on and before `until`; None is open."""

    since: datetime | None = None
    until: datetime | None = None


def latency(
    tables: Annotated[list[str] | None, typer.Argument(help="Source tables; all by default.")] = None,
    *,
    since: Annotated[
        str | None, typer.Option("--from", help="Minutes from this UTC time on: 2026-01-31T08:30.")
    ] = None,
    until: Annotated[str | None, typer.Option("--to", help="Minutes before this UTC time.")] = None,
    last: Annotated[float | None, typer.Option(min=1, help="The last so many minutes; in place of --from.")] = None,
    config: Annotated[Path, typer.Option("--config", help="The job's configuration; it names the lake.")] = Path(
        "build/job.yaml"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array of objects, for programs.")] = False,
) -> None:
    """Show how long each hop took: from a change's origin, by bridge and Kinesis, until it could be queried.

    Percentiles of a longer time come from the minutes' sketches, within 1 % of those of every single change. Hops that
    involve the table's stream are known to whole seconds only, and marked so.

    Example: lakestream latency chargeminder-car-telemetry --last 60
    """
    span = _span(since, until, last)
    found = hops(load_settings(config), span, tables or [])
    if as_json:
        typer.echo(json.dumps([asdict(hop) for hop in found], indent=2))
    elif found:
        Console().print(*as_tables(found))
    else:
        Console(stderr=True).print("nothing was measured in that time")


def hops(settings: Settings, span: Span, tables: Sequence[str]) -> list[HopFigures]:
    """Of the tables named, or of all that were measured; empty when nothing was."""
    from streaming_job.latency.hops import HOPS  # noqa: PLC0415 - help needs none of it
    from streaming_job.latency.table import of_arrow  # noqa: PLC0415
    from streaming_job.pipeline.locations import Lake  # noqa: PLC0415

    if unknown := [name for name in tables if name not in settings.tables]:
        raise ConfigurationError(
            f"no table {unknown[0]!r} in the configuration", hint=f"it has {', '.join(sorted(settings.tables))}"
        )
    place = Lake(settings.lake).shared("latency")
    minutes = _of_path(settings, place.path, span) if place.path is not None else _of_catalog(settings, place, span)
    if minutes is None:
        return []
    figures = [_figures(table, hop, sketch) for (table, hop), sketch in of_arrow(minutes).items()]
    wanted = [hop for hop in figures if not tables or hop.table in tables]
    order = [hop.name for hop in HOPS]
    return sorted(wanted, key=lambda hop: (hop.table, order.index(hop.hop)))


def _of_path(settings: Settings, path: str, span: Span) -> "pa.Table | None":
    from deltalake import DeltaTable  # noqa: PLC0415 - see hops
    from deltalake.exceptions import TableNotFoundError  # noqa: PLC0415

    from streaming_job.pipeline.opening import storage_options  # noqa: PLC0415

    filters = [("minute", sign, moment) for sign, moment in ((">=", span.since), ("<", span.until)) if moment]
    try:
        table = DeltaTable(path, storage_options=storage_options(settings, path))
        return table.to_pyarrow_table(filters=filters or None)
    except TableNotFoundError:
        return None


def _of_catalog(settings: Settings, place: "Location", span: Span) -> "pa.Table | None":
    from pyspark.sql import functions as F  # noqa: N812, PLC0415 - its usual name; see hops

    from streaming_job.spark import spark_session  # noqa: PLC0415

    with spark_session("lakestream-latency", settings.spark) as spark:
        if not spark.catalog.tableExists(place.sql):
            return None
        rows = spark.table(place.sql)
        if span.since:
            rows = rows.where(F.col("minute") >= F.lit(span.since))
        if span.until:
            rows = rows.where(F.col("minute") < F.lit(span.until))
        return rows.toArrow()


def _figures(table: str, hop: str, sketch: "HopSketch") -> HopFigures:
    from streaming_job.latency.hops import HOPS  # noqa: PLC0415 - see hops
    from streaming_job.latency.sketches import QUANTILES  # noqa: PLC0415

    p50, p95, p99 = (sketch.quantile_ms(quantile) or 0.0 for quantile in QUANTILES)
    return HopFigures(
        table=table,
        hop=hop,
        resolution_ms=next(known.resolution_ms for known in HOPS if known.name == hop),
        changes=sketch.count,
        negative=sketch.negative,
        mean_ms=sketch.sum_ms / sketch.count,
        min_ms=sketch.min_ms,
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        max_ms=sketch.max_ms,
    )


def as_tables(found: Sequence[HopFigures]) -> list[RichTable]:
    """One for each source table; durations in milliseconds."""
    shown: dict[str, RichTable] = {}
    for hop in found:
        if hop.table not in shown:
            shown[hop.table] = table = RichTable(title=hop.table, title_justify="left", box=None)
            table.add_column("hop, ms", no_wrap=True)
            for name in ("changes", "mean", "p50", "p95", "p99", "max", "below 0"):
                table.add_column(name, justify="right", no_wrap=True)
        coarse = hop.resolution_ms > 1
        shown[hop.table].add_row(
            hop.hop + (" (whole s)" if coarse else ""),
            f"{hop.changes:,}",
            *(f"{value:,.0f}" for value in (hop.mean_ms, hop.p50_ms, hop.p95_ms, hop.p99_ms, hop.max_ms)),
            f"{hop.negative:,}",
            style="dim" if coarse else "",
        )
    return list(shown.values())


def _span(since: str | None, until: str | None, last: float | None) -> Span:
    if since and last:
        raise ConfigurationError("--from and --last are both given", hint="one of them says where to begin")
    begin = datetime.now(UTC) - timedelta(minutes=last) if last else _moment("--from", since)
    span = Span(begin, _moment("--to", until))
    if span.since and span.until and span.since >= span.until:
        raise ConfigurationError("--from is not before --to", hint="both are UTC")
    return span


def _moment(option: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigurationError(f"{option} {text!r} is not a time", hint="for example 2026-01-31T08:30") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
