"""`lakestream`: every command a person needs, from the embedded stack to the proof that source and lake agree.

Exit codes: 0 done; 1 it failed; 2 wrong usage or configuration, nothing was started; 3 what was started did not come
up, and was ended; 4 there is no stack; 5 `verify` found differences; 6 `verify` could not settle everything;
7 `redrive` left dead letters that cannot be sent yet; 8 `doctor` found a problem; 9 `snapshot`, `replay`
or `rebuild` was not begun, since it could not end right; 10 the job was asked by `maintain`, `rebuild` or `promote` and
has not done it yet; 11 `job run` found a
run; 12 `job status` found none at work; 13 `probe` found gaps; 130 interrupted.
"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table as RichTable

from config.errors import LakestreamError
from infra import deploy_cli
from infra.local.cli import app as local_app
from streaming_job.latency.probe import cli as probe_cli
from streaming_job.operations import (
    cost,
    doctor,
    latency,
    maintain_command,
    pull_command,
    rebuild_command,
    redrive_command,
    replay_command,
    scale,
    snapshot_command,
)
from streaming_job.operations.archive import app as archive_app
from streaming_job.operations.job_command import app as job_app

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from streaming_job.operations.verify import Report

app = typer.Typer(
    name="lakestream", no_args_is_help=True, help=__doc__, rich_markup_mode="rich", pretty_exceptions_enable=False
)
app.add_typer(local_app, name="local")
app.add_typer(archive_app, name="archive")
app.add_typer(rebuild_command.app, name="rebuild")
app.command(name="promote", epilog=rebuild_command.EXIT_CODES)(rebuild_command.promote)
app.add_typer(job_app, name="job")
app.command(name="latency", epilog=latency.EXIT_CODES)(latency.latency)
app.command(name="cost", epilog=cost.EXIT_CODES)(cost.cost)
app.command(name="scale", epilog=scale.EXIT_CODES)(scale.scale)
app.command(name="deploy", epilog=deploy_cli.EXIT_CODES)(deploy_cli.deploy)
app.command(name="doctor", epilog=doctor.EXIT_CODES)(doctor.doctor)
app.command(name="maintain", epilog=maintain_command.EXIT_CODES)(maintain_command.maintain)
app.command(name="pull", epilog=pull_command.EXIT_CODES)(pull_command.pull)
app.command(name="snapshot", epilog=snapshot_command.EXIT_CODES)(snapshot_command.snapshot)
app.command(name="replay", epilog=replay_command.EXIT_CODES)(replay_command.replay)
app.command(name="probe", epilog=probe_cli.EXIT_CODES)(probe_cli.probe)
app.command(name="redrive", epilog=redrive_command.EXIT_CODES)(redrive_command.redrive)

ConfigOption = Annotated[
    Path, typer.Option("--config", help="The job's configuration; `local up` writes one to build/job.yaml.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")]
DEFAULT_CONFIG = Path("build/job.yaml")
DIFFERENT = 5
UNPROVEN = 6

console = Console(stderr=True)


@app.command()
def run(
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    available_now: Annotated[
        bool, typer.Option("--available-now", help="Stop when what is in the stream now has been committed.")
    ] = False,
) -> None:
    """Run the streaming job: Kinesis to Delta, continuously, until SIGTERM.

    Example: lakestream run --config build/job.yaml
    """
    from streaming_job.logs import log_to_stderr  # noqa: PLC0415 - the other commands need not load Spark
    from streaming_job.main import run as run_job  # noqa: PLC0415

    log_to_stderr()
    run_job(config, available_now=available_now)


@app.command()
def verify(
    tables: Annotated[
        list[str] | None, typer.Argument(help="Source tables; all of the configuration's by default.")
    ] = None,
    *,
    config: ConfigOption = DEFAULT_CONFIG,
    segments: Annotated[int, typer.Option(min=1, max=64, help="Parallel segments of the Scan.")] = 4,
    read_capacity: Annotated[
        float | None, typer.Option(min=1, help="Read capacity units a second to spend at most; no limit by default.")
    ] = None,
    settle: Annotated[float, typer.Option(min=0, help="Seconds a difference has to turn out to be one.")] = 30,
    record: Annotated[
        Path | None, typer.Option(help="Where the answer is kept for the dashboard; beside --config by default.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare source and lake, row by row, by digest. Exit code 0 only when they are equal.

    A change on its way is no difference: what differs is read again until it agrees, or until what was read had surely
    passed: the lake committed a later change, or the table's stream has none that the lake has not. What cannot be
    settled is called unproven, never equal.

    Example: lakestream verify chargeminder-car-telemetry --read-capacity 500
    """
    from config.settings import load_settings  # noqa: PLC0415 - see run
    from streaming_job.main import configured_tables  # noqa: PLC0415
    from streaming_job.operations.verify import Options  # noqa: PLC0415
    from streaming_job.operations.verify_command import chosen, keep  # noqa: PLC0415
    from streaming_job.operations.verify_command import verify as verify_tables  # noqa: PLC0415

    settings = load_settings(config)
    wanted = chosen(configured_tables(settings), tables or [])
    options = Options(segments=segments, read_capacity_units_per_s=read_capacity, settle_s=settle)
    with console.status("starting") as shown:
        reports = verify_tables(settings, wanted, options, lambda step: shown.update(f"{step} …"))
    try:
        keep(reports, record or config.with_name("verify.json"), settings.tables)
    except OSError as error:
        console.print(f"[dim]the answer is not kept for the dashboard: {error}[/dim]", highlight=False)
    if as_json:
        print_json({report.table: report.as_dict() for report in reports})
    else:
        Console().print(verify_table(reports))
        for note in verify_notes(reports):
            Console(soft_wrap=True).print(note, markup=False, highlight=False)
    if any(report.differences for report in reports):
        raise typer.Exit(DIFFERENT)
    if any(report.unproven for report in reports):
        raise typer.Exit(UNPROVEN)


def verify_table(reports: "Sequence[Report]") -> RichTable:
    table = RichTable(
        "table", "items", "rows", "missing", "extra", "stale", "different", "unproven", "verdict", box=None
    )
    for report in reports:
        counts = (report.missing, report.extra, report.stale, report.different, report.unproven)
        verdict = (
            "[green]equal[/]" if report.equal else "[red]different[/]" if report.differences else "[yellow]unproven[/]"
        )
        table.add_row(
            report.table,
            f"{report.source_items:,}",
            f"{report.lake_rows:,}",
            *(f"{count:,}" for count in counts),
            verdict,
        )
    return table


def verify_notes(reports: "Sequence[Report]") -> "Iterator[str]":
    """Whole lines: a key is to be copied from here."""
    for report in reports:
        if report.kept:
            yield f"{report.table}: {report.kept:,} rows of deleted items are kept, as its rules say"
        if report.doubled:
            yield (
                f"{report.table}: {report.doubled:,} keys have more rows than one: `lakestream rebuild` mends that, "
                "`replay --repair` would write each of them"
            )
        for doubt in report.doubts:
            yield f"{report.table}: changes may have been lost ({doubt}): {'settled' if report.equal else 'it stands'}"
        for finding, keys in report.examples.items():
            more = f" and {len(keys) - 1} more listed by --json" if keys[1:] else ""
            yield f"{report.table}: {finding}: {keys[0]}{more}"


@app.command()
def dashboard(
    stack: Annotated[Path, typer.Option("--stack", help="Of the stack whose processes are asked.")] = Path(
        "build/stack.json"
    ),
    *,
    metrics: Annotated[
        list[str] | None,
        typer.Option("--metrics", help="URL or name=URL of /metrics, the job's first; repeated; in place of --stack."),
    ] = None,
    title: Annotated[str, typer.Option(help="Shown beside the name; with --metrics.")] = "",
    verify_record: Annotated[Path | None, typer.Option(help="What `verify` wrote last; with --metrics.")] = None,
    host: Annotated[str, typer.Option(help="Other than loopback, a token is asked for.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one.")] = 0,
    token: Annotated[
        str | None, typer.Option(envvar="LAKESTREAM_DASHBOARD_TOKEN", help="Made anew when needed and not given.")
    ] = None,
    allow_host: Annotated[list[str] | None, typer.Option(help="Names the page may be asked for by; repeated.")] = None,
    fresh_within: Annotated[float, typer.Option(min=0.1, help="Seconds within which p95 counts as fresh.")] = 2.0,
) -> None:
    """Serve the page that says whether the lake is fresh, from what the processes publish. It needs no job to run.

    Example: lakestream dashboard --metrics http://127.0.0.1:9464/metrics --port 8080
    """
    from streaming_job.latency.dashboard import command  # noqa: PLC0415 - see run

    subject = command.of_urls(metrics, title, verify_record) if metrics else command.of_stack(stack)
    options = command.Options(
        host=host,
        port=port,
        token=token,
        allowed_hosts=tuple(allow_host or ()),
        target_ms=fresh_within * 1000,
    )
    command.serve(subject, options, typer.echo)


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, default=str))


def main() -> None:
    """What the `lakestream` script calls: an error meant for a person is one line, never a stack trace."""
    try:
        app()
    except LakestreamError as error:
        console.print(error.line, markup=False, highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)
