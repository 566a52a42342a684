"""`lakestream snapshot`: its options, its progress, and what it prints."""

import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

if TYPE_CHECKING:
    from config.settings import Settings
    from config.tables import TableConfig
    from streaming_job.operations.handing_over import Standing, Total
    from streaming_job.operations.snapshot_load import Plan

EXIT_CODES: Final = """Exit codes: 0 every item is in the lake; 1 it failed, --resume goes on; 2 wrong usage or
configuration, nothing was read; 9 not begun: nothing proves that the stream is read, or it would take longer than the
stream keeps; 130 interrupted, --resume goes on."""

_err = Console(stderr=True)


def snapshot(
    table: Annotated[str | None, typer.Argument(help="Source table; not needed where there is one.")] = None,
    *,
    config: Annotated[Path, typer.Option("--config", help="The job's configuration.")] = Path("build/job.yaml"),
    segments: Annotated[int, typer.Option(min=1, max=64, help="Parallel segments of the Scan.")] = 4,
    read_capacity: Annotated[
        float | None, typer.Option(min=1, help="Read capacity units a second to spend at most; no limit by default.")
    ] = None,
    export: Annotated[
        str | None, typer.Option(help="s3://… of a table export in DynamoDB JSON, in place of a Scan.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the one that was cut off.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Even if it takes longer than the stream keeps.")] = False,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for a change that proves the stream.")] = 60,
    state: Annotated[
        Path | None, typer.Option(help="Where it is kept how far it is; beside --config by default.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Load a table for the first time: every item, by Scan or from an export, joined to its stream without a gap.

    Begins only when a change has reached the lake (or the stream is empty): then every later change does too, and beats
    what was scanned. The rows go into the bucket under snapshot/, and from there through the job into the tables, or,
    where none runs, through a pipeline of this command's own. Safe to run at any time: nothing newer is replaced.

    Example: lakestream snapshot chargeminder-car-telemetry --read-capacity 500
    """
    from config.settings import load_settings  # noqa: PLC0415 - --help need not load the rest
    from streaming_job.main import configured_tables  # noqa: PLC0415
    from streaming_job.operations.lake_past import past_of  # noqa: PLC0415
    from streaming_job.operations.snapshot_load import Request, plan  # noqa: PLC0415

    settings = load_settings(config)
    tables = configured_tables(settings)
    wanted = one(tables, table)
    request = Request(
        segments=segments,
        read_capacity_units_per_s=read_capacity,
        export=export,
        is_resumed=resume,
        wait_s=wait,
        state_file=state or config.with_name(f"snapshot-{wanted.table}.json"),
    )
    began = time.monotonic()
    with ExitStack() as cleanup, _err.status("looking") as shown:
        made = plan(
            settings,
            wanted,
            request,
            past_of(settings, wanted, cleanup),
            lambda step: shown.update(f"{step} …"),
        )
    _err.print(f"{made.proof}; {made.estimate}", highlight=False)
    if not force:
        made.estimate.check()
    resumed = "`lakestream snapshot --resume` goes on"
    total = load(settings, tables, made, name="lakestream snapshot", hint=resumed)
    made.state_file.unlink()
    _tell(made, total, time.monotonic() - began, as_json=as_json)


def one(tables: "dict[str, TableConfig]", name: str | None) -> "TableConfig":
    from config.errors import ConfigurationError  # noqa: PLC0415 - see snapshot
    from streaming_job.operations.verify_command import chosen  # noqa: PLC0415

    wanted = chosen(tables, [name] if name is not None else [])
    if len(wanted) > 1:
        raise ConfigurationError("the configuration has more tables than one", hint=f"name one: {', '.join(wanted)}")
    return next(iter(wanted.values()))


def load(settings: "Settings", tables: "dict[str, TableConfig]", made: "Plan", *, name: str, hint: str) -> "Total":
    """All of the source, read and taken in; `name` says who does it where no job runs, `hint` how it goes on."""
    from streaming_job.operations.handing_over import Delivery  # noqa: PLC0415 - see snapshot
    from streaming_job.operations.snapshot_load import hand_all_over  # noqa: PLC0415
    from streaming_job.pipeline.intake import Intake  # noqa: PLC0415

    state, intake = made.state, Intake.of(settings)
    with _bars() as bars:
        read = bars.add_task("read", total=max(made.estimate.items, 1), completed=state.items)
        taken = bars.add_task("in the lake", total=None)

        def show(standing: "Standing") -> None:
            bars.update(taken, total=standing.handed_over, completed=standing.taken_in)

        with Delivery(settings, tables, intake, state.id, name=name, hint=hint, show=show) as delivery:
            hand_all_over(made, delivery, lambda: bars.update(read, completed=state.items))
            bars.update(read, total=state.items, completed=state.items)
            return delivery.wait()


def _bars() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        console=_err,
        transient=True,
        disable=not _err.is_terminal,
    )


def _tell(made: "Plan", total: "Total", seconds: float, *, as_json: bool) -> None:
    state = made.state
    facts: dict[str, Any] = {
        "id": state.id,
        "table": state.table,
        "proof": made.proof,
        "items": state.items,
        "excluded": state.items - state.rows,
        "rows": state.rows,
        "new_in_history": total.history_inserted,
        "new_in_current": total.current_inserted,
        "replaced_in_current": total.current_updated,
        "rejects": total.rejects,
        "seconds": round(seconds, 1),
    }
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    out = Console(soft_wrap=True, highlight=False)
    out.print(f"{state.items:,} items of {state.table} read, {facts['excluded']:,} kept out by its filter")
    out.print(f"{total.current_inserted:,} new rows in current; of the others a change had come before")
    if total.rejects:
        out.print(f"[yellow]{total.rejects:,} rejects[/]")
