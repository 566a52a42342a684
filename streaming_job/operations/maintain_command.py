"""`lakestream maintain`: its options, and what it prints."""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.table import Table as RichTable

if TYPE_CHECKING:
    from config.settings import Settings
    from config.tables import TableConfig
    from streaming_job.operations.maintain import Maintained, Say

EXIT_CODES: Final = """Exit codes: 0 done; 1 a task failed; 2 wrong usage or configuration; 3 a table that cannot be
written; 10 the job was asked and has not done it yet."""

_err = Console(stderr=True)


def maintain(
    tables: Annotated[
        list[str] | None, typer.Argument(help="Source tables; all of the configuration's by default.")
    ] = None,
    *,
    config: Annotated[Path, typer.Option("--config", help="The job's configuration.")] = Path("build/job.yaml"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what there is to do; change nothing.")] = False,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for a job that has the tables.")] = 600,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Join small files, purge tombstones past their window, delete files that nothing refers to: now, due or not.

    The job does all of this by itself, between its batches. While it runs, it is asked to, and this waits; where none
    runs, this does it. Tombstones go by their table's rules (`lake.deletes`), files after a week at the earliest.

    Example: lakestream maintain --dry-run
    """
    from config.settings import load_settings  # noqa: PLC0415 - --help need not load the rest
    from streaming_job.main import configured_tables  # noqa: PLC0415
    from streaming_job.operations.verify_command import chosen  # noqa: PLC0415

    settings = load_settings(config)
    wanted = chosen(configured_tables(settings), tables or [])
    with _err.status("opening the tables") as shown:
        done = list(
            _maintained(settings, list(wanted.values()), wait, lambda what: shown.update(f"{what} …"), dry_run=dry_run)
        )
    if as_json:
        said = {each.table: each.as_dict() for each in done if each.table is not None}
        shared = next((each.as_dict() for each in done if each.table is None), None)
        typer.echo(json.dumps({"dry_run": dry_run, "tables": said, "shared": shared}, indent=2))
    else:
        Console().print(_shown(done, dry_run=dry_run))
    if any(each.failed for each in done):
        raise typer.Exit(1)


def _maintained(
    settings: "Settings", configs: "Sequence[TableConfig]", wait_s: float, say: "Say", *, dry_run: bool
) -> "Iterator[Maintained]":
    from streaming_job.operations.maintain import Maintenance  # noqa: PLC0415 - see maintain
    from streaming_job.pipeline.batch import now_ms  # noqa: PLC0415
    from streaming_job.pipeline.opening import Tables  # noqa: PLC0415
    from streaming_job.spark import spark_session  # noqa: PLC0415

    with ExitStack() as cleanup:
        session = cache(lambda: cleanup.enter_context(spark_session("lakestream-maintain", settings.spark)))
        tables = Tables(settings, session)
        maintenance = Maintenance(settings, tables, clock=now_ms, wait_s=wait_s, say=say)
        yield from maintenance.plan(configs) if dry_run else maintenance.run(configs)


def _shown(done: "Sequence[Maintained]", *, dry_run: bool) -> RichTable:
    shown = RichTable("table", "task", "would be done" if dry_run else "done", "by", box=None)
    for each in done:
        if not each.tasks:
            shown.add_row(each.table or "shared", "-", "nothing", each.by)
        for task in each.tasks:
            what = f"[red]failed: {task.failure}[/]" if task.failure is not None else task.done or "[dim]nothing[/]"
            shown.add_row(task.location, task.task, what, each.by)
    return shown
