"""`lakestream cost`: what a month would cost, line by line, and what it was reckoned from."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table as RichTable

from streaming_job.operations.cost_forecast import COMPRESSED, Line, Load, Way, forecast
from streaming_job.operations.cost_prices import PRICES, Prices, load_prices

EXIT_CODES: Final = "Exit codes: 0 done; 2 a load or a way to run it that cannot be."
_OLD: Final = timedelta(days=365)
_err = Console(stderr=True)


class Mode(StrEnum):
    ON_DEMAND = "on-demand"
    PROVISIONED = "provisioned"


class Reads(StrEnum):
    STREAM = "stream"
    FILES = "files"
    PULL = "pull"


_USUAL_H: Final = {Reads.STREAM: 168, Reads.FILES: 24, Reads.PULL: 24}
"""A stream's retention: what the archive holds need not wait in it."""


def cost(
    rate: Annotated[float, typer.Argument(min=0.000001, help="Changes a second, averaged over the month.")],
    *,
    way: Annotated[Reads, typer.Option(help="What the job reads: README, 'Which to choose'.")] = Reads.STREAM,
    item_bytes: Annotated[int, typer.Option(min=1, help="Of an item, on average.")] = 2_500,
    old_images: Annotated[bool, typer.Option(help="Whether the rules send old images too.")] = True,
    tables: Annotated[int, typer.Option(min=1, help="Source tables.")] = 1,
    table_shards: Annotated[
        int | None,
        typer.Option(min=1, help="Of each table's own stream; what its writes need by default.", show_default=False),
    ] = None,
    items: Annotated[int, typer.Option(min=0, help="Items in them, for verify.")] = 1_000_000,
    mode: Annotated[Mode, typer.Option(help="Of the Kinesis stream.")] = Mode.ON_DEMAND,
    shards: Annotated[int, typer.Option(min=1, help="Of a provisioned stream.")] = 1,
    retention_h: Annotated[
        int | None,
        typer.Option(help="Of the Kinesis stream; 168, or 24 where its archive is read.", show_default=False),
    ] = None,
    fan_out: Annotated[bool, typer.Option("--fan-out", help="The job reads by enhanced fan-out.")] = False,
    archive_days: Annotated[int, typer.Option(min=1, help="How long the archive is kept.")] = 400,
    pipe: Annotated[bool, typer.Option("--pipe", help="An EventBridge pipe calls the bridge.")] = False,
    runs_h: Annotated[
        float, typer.Option(min=0, help="Starts of the job an hour, each until all is read; 0: it runs on.")
    ] = 0.0,
    tenants: Annotated[int, typer.Option(min=1, help="Of a table that is pulled.")] = 100,
    overlap_s: Annotated[float, typer.Option(min=0, help="What each pull reads again.")] = 300.0,
    index: Annotated[bool, typer.Option(help="Whether the pull's index is there for it alone.")] = True,
    commits_min: Annotated[float, typer.Option(min=0.01, help="The merge cadence: batches a minute.")] = 60.0,
    verifies: Annotated[float, typer.Option(min=0, help="Runs of verify a month.")] = 30.0,
    nodes: Annotated[int, typer.Option(min=0, help="Of the job's compute; 0 leaves it out.")] = 1,
    databricks: Annotated[bool, typer.Option(help="Whether the job's compute is Databricks'.")] = True,
    prices: Annotated[Path, typer.Option(help="Another price table.")] = PRICES,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Forecast a month's cost from rate, item size, shards, retention and merge cadence.

    Prices come from config/prices.yaml, which bears a date. The lake's own storage is reckoned as one month's growth.

    Example: lakestream cost 50 --item-bytes 3000 --commits-min 12
    """
    table = load_prices(prices)
    load = Load(
        changes_s=rate,
        item_bytes=item_bytes,
        old_images=old_images and way is not Reads.PULL,
        tables=tables,
        table_shards=table_shards,
        items=items,
        tenants=tenants,
    )
    run = Way(
        way=way.value,
        by_pipe=pipe,
        runs_h=runs_h,
        overlap_s=overlap_s,
        own_index=index,
        mode="ON_DEMAND" if mode is Mode.ON_DEMAND else "PROVISIONED",
        shards=shards,
        retention_h=_USUAL_H[way] if retention_h is None else retention_h,
        fan_out=fan_out,
        archive_days=archive_days,
        commits_min=commits_min,
        verifies_month=verifies,
        nodes=nodes,
        databricks=databricks,
    )
    lines = forecast(load, run, table)
    total = sum(line.usd for line in lines)
    changes = rate * 3600 * table.month_h
    if as_json:
        document = {
            "usd_month": round(total, 2),
            "usd_million_changes": round(total / changes * 1e6, 4),
            "prices_as_of": table.as_of.isoformat(),
            "region": table.region,
            "lines": [asdict(line) for line in lines],
        }
        typer.echo(json.dumps(document, indent=2))
    else:
        _print(lines, total, changes, load, table)
    if datetime.now(UTC).date() - table.as_of > _OLD:
        _err.print(f"[yellow]the prices are of {table.as_of}: check them[/]", highlight=False)


def _print(lines: Sequence[Line], total: float, changes: float, load: Load, prices: Prices) -> None:
    table = RichTable("service", "for", box=None)
    for heading in ("quantity", "", "USD a month"):
        table.add_column(heading, justify="left" if not heading else "right")
    for line in lines:
        table.add_row(line.service, line.what, f"{line.quantity:,.6g}", line.unit, f"{line.usd:,.2f}")
    table.add_row("[bold]all[/]", "", f"{changes:,.0f}", "changes", f"[bold]{total:,.2f}[/]")
    out = Console(soft_wrap=True, highlight=False)
    out.print(table)
    out.print(
        f"[dim]List prices of {prices.as_of}, {prices.region}. Records of {load.record_bytes:,} bytes; archive and "
        f"history taken to compress to {COMPRESSED:.0%}.[/]"
    )
