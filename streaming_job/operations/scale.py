"""`lakestream scale`: what rates of changes need, how fresh they are, what they cost, and which limits they meet."""

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final, get_args

import typer
from rich.console import Console
from rich.table import Table as RichTable

from config.limits import DYNAMODB_ITEM_BYTES_MAX
from streaming_job.operations.cost_forecast import Load
from streaming_job.operations.cost_prices import PRICES, load_prices
from streaming_job.operations.measured import ITEM_BYTES
from streaming_job.operations.scale_plan import ENGINE, Limit, Place, Plan, limits, plan

EXIT_CODES: Final = "Exit codes: 0 done; 2 a rate that cannot be."
PLAN_HEADINGS: Final = (
    "changes/s",
    "job on",
    "stacks",
    "each: table's shards",
    "bridges at once",
    "stream's shards",
    "job",
    "a batch every",
    "fresh, p50 and p95",
    "all: USD a month",
)
_FILE_WIDTH: Final = 170
LIMIT_HEADINGS: Final = ("changes/s", "limit", "what lifts it")


def scale(
    rates: Annotated[list[float], typer.Argument(min=1, help="Changes a second, one or several.")],
    *,
    item_bytes: Annotated[
        int, typer.Option(min=1, max=DYNAMODB_ITEM_BYTES_MAX, help="Of an item, on average.")
    ] = ITEM_BYTES,
    old_images: Annotated[bool, typer.Option(help="Whether the rules send old images too.")] = True,
    prices: Annotated[Path, typer.Option(help="Another price table.")] = PRICES,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Plan shards, invocations, cores and stacks for rates of changes, with freshness by simulation and a month's cost.

    What a change costs a processor is as measured for telemetry of some 20 signals.

    Example: lakestream scale 1000 10000 100000
    """
    if not all(map(math.isfinite, rates)):
        raise typer.BadParameter("a rate is a number of changes a second", param_hint="RATES")
    table = load_prices(prices)
    loads = [Load(changes_s=rate, item_bytes=item_bytes, old_images=old_images) for rate in sorted(rates)]
    plans = [plan(load, place, table) for load in loads for place in get_args(Place)]
    met = limits(loads[0])
    if as_json:
        document = {"plans": [asdict(each) for each in plans], "limits": [asdict(each) for each in met]}
        typer.echo(json.dumps(document, indent=2))
        return
    out = Console(highlight=False, width=None if sys.stdout.isatty() else _FILE_WIDTH)
    out.print(_grid(PLAN_HEADINGS, [plan_cells(each) for each in plans]))
    out.print()
    out.print(_grid(LIMIT_HEADINGS, [limit_cells(each) for each in met]))


def plan_cells(plan: Plan) -> tuple[str, ...]:
    fresh = plan.freshness
    executors = plan.nodes - 1
    return (
        f"{plan.changes_s:,.0f}",
        plan.place,
        f"{plan.stacks:,}",
        f"{plan.table_shards:,}",
        f"{plan.table_shards * plan.parallelization:,}",
        f"{plan.stream_shards:,} {plan.mode.lower().replace('_', ' ')}",
        f"{plan.cores} cores"
        if ENGINE[plan.place] == "rust"
        else f"driver, {executors} executor{'s'[: executors > 1]}",
        f"{fresh.batch_every_ms / 1000:.1f} s",
        f"{fresh.p50_ms / 1000:.1f} s, {fresh.p95_ms / 1000:.1f} s",
        f"{plan.usd_month:,.0f}",
    )


def limit_cells(limit: Limit) -> tuple[str, ...]:
    return (f"{limit.changes_s:,.0f}", limit.what, limit.lifted_by)


def _grid(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> RichTable:
    table = RichTable(*headings, box=None)
    for row in rows:
        table.add_row(*row)
    return table
