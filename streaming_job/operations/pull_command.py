"""`lakestream pull`: its options, its passes one after the other, and what it prints."""

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table as RichTable

if TYPE_CHECKING:
    from config.tables import TableConfig

EXIT_CODES: Final = """Exit codes: 0 done; 1 some tenants could not be read, or what was read did not get into the lake;
2 wrong usage or configuration, nothing was read; 130 interrupted: what is in the lake stays, the rest is read again."""

_err = Console(stderr=True)


def pull(
    table: Annotated[str | None, typer.Argument(help="Source table; not needed where there is one.")] = None,
    *,
    config: Annotated[Path, typer.Option("--config", help="The job's configuration.")] = Path("build/job.yaml"),
    tenant: Annotated[
        list[str] | None, typer.Option("--tenant", help="Only this one; repeated. By default all of the rules.")
    ] = None,
    every: Annotated[
        float | None, typer.Option(min=1, help="Seconds from one pass to the next, until SIGTERM; one pass by default.")
    ] = None,
    reconcile: Annotated[
        bool, typer.Option("--reconcile", help="Then compare the whole table, and mend what pulling cannot see.")
    ] = False,
    read_capacity: Annotated[
        float | None, typer.Option(min=1, help="Read capacity units a second to spend at most; no limit by default.")
    ] = None,
    segments: Annotated[int, typer.Option(min=1, max=64, help="Of --reconcile's Scan.")] = 4,
    state: Annotated[Path | None, typer.Option(help="Where the cursors are kept; beside --config by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a pass.")] = False,
) -> None:
    """Read a table that has no stream, by an index of tenant and version: what was written since the last time.

    Not seen: deletes, items that left the filter, items without the index's attributes, what was written further back
    than the overlap, the states between two passes, and which of two states under one version is the newer.
    `lakestream verify` finds them; --reconcile does too, and mends them, at the cost of a whole Scan. Tenants that
    neither --tenant nor the rules name are discovered by a Scan of the index, once an hour unless the rules say else.

    The table's rules name the index (`pull` in config/README.md). A table in the lake is written by its stream or
    pulled, not both.

    Example: lakestream pull charger-readings --every 60 --read-capacity 100
    """
    from config.errors import ConfigurationError  # noqa: PLC0415 - --help need not load the rest
    from config.settings import load_settings  # noqa: PLC0415
    from streaming_job.logs import log_to_stderr  # noqa: PLC0415
    from streaming_job.main import configured_tables  # noqa: PLC0415
    from streaming_job.operations.pull_cursors import alone  # noqa: PLC0415
    from streaming_job.operations.pull_run import Request, run_of  # noqa: PLC0415

    if every is not None and reconcile:
        raise ConfigurationError("--reconcile goes with one pass", hint="run it beside, from time to time")
    if every is not None:
        log_to_stderr()
    settings = load_settings(config)
    wanted = _one(configured_tables(settings), table)
    request = Request(
        tenants=tuple(tenant or ()),
        read_capacity_units_per_s=read_capacity,
        segments=segments,
        state_file=state or config.with_name(f"pull-{wanted.table}.json"),
    )
    with alone(request.state_file), _err.status("looking") as shown:
        run = run_of(settings, wanted, request, lambda step: shown.update(f"{step} …"))
        with run.delivery() as delivery:
            for _ in _passes(every):
                outcome = run.once(delivery)
                if not reconcile:
                    _tell(outcome.as_dict(), as_json=as_json)
        if reconcile:
            run.reconcile(outcome)
            _tell(outcome.as_dict(), as_json=as_json)
    if outcome.counts.failed:
        raise typer.Exit(1)


def _one(tables: "dict[str, TableConfig]", name: str | None) -> "TableConfig":
    """The table named; or the only one whose rules speak of pulling."""
    from config.errors import ConfigurationError  # noqa: PLC0415 - see pull
    from streaming_job.operations.verify_command import chosen  # noqa: PLC0415

    if name is not None:
        return chosen(tables, [name])[name]
    wanted = [table for table in tables.values() if table.pull is not None]
    if len(wanted) != 1:
        raise ConfigurationError(
            f"{len(wanted)} tables of the configuration have rules for pulling", hint="name the table to pull"
        )
    return wanted[0]


def _passes(every: float | None) -> Iterator[None]:
    """One, or one after the other; a signal ends them after the pass in hand."""
    if every is None:
        yield
        return
    stop = threading.Event()
    with _signals_set(stop):
        while not stop.is_set():
            began = time.monotonic()
            yield
            stop.wait(max(0.0, began + every - time.monotonic()))


@contextmanager
def _signals_set(stop: threading.Event) -> Iterator[None]:
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tell(outcome: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(outcome))
        return
    table = RichTable(box=None, show_header=False)
    lake, mended = outcome.pop("lake"), outcome.pop("reconciled")
    for name, value in outcome.items():
        if value or name in ("tenants", "read", "sent"):
            table.add_row(name.replace("_", " "), f"{value:,}", _MEANINGS.get(name, ""))
    for name, value in {**lake, **(mended or {})}.items():
        table.add_row(name.replace("_", " "), f"{value:,}", "")
    Console(soft_wrap=True, highlight=False).print(table)


_MEANINGS: Final = {
    "failed": "tenants not read to their end; the next pass does",
    "late": "written behind the newest version seen",
    "ahead": "versions later than now: a clock is fast",
    "odd": "versions that cannot be read: sent once, found again only by --reconcile",
    "unreadable": "items that can be no envelope; see the log",
    "not_in_index": "items without an entry in the index, as DynamoDB last counted: only --reconcile finds them",
}
