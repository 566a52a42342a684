"""`lakestream redrive`: its options, the parts it is made of, and what it prints."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table as RichTable

from config.errors import ConfigurationError
from config.settings import BucketSettings, Settings
from streaming_job.operations.redrive import Redrive, Report
from streaming_job.operations.redrive_letters import Letters, Place

if TYPE_CHECKING:
    from streaming_job.operations.redrive_rejects import RedriveRejects

DEAD_LETTERS_STAY: Final = 7
EXIT_CODES: Final = """Exit codes: 0 none is left; 1 it stopped half way, what was sent is marked; 2 wrong usage or
configuration; 7 some dead letters stay, their reasons are listed."""

_err = Console(stderr=True)


def redrive(
    *,
    config: Annotated[Path, typer.Option("--config", help="The job's configuration.")] = Path("build/job.yaml"),
    table: Annotated[str | None, typer.Option(help="Only this source table's dead letters of the bridge.")] = None,
    rejects: Annotated[
        bool, typer.Option("--rejects", help="What the job rejected, in place of dead letters.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="With --rejects: also what this release has sent before.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be sent and what stays; send nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Send dead letters through the bridge's code into Kinesis again, in the order the changes happened.

    With --rejects: what the job could not decode, as it was, for a release that can, or a claim check put back.

    Mend the cause first (rules, permissions); --dry-run says what would still be refused. What was sent gets a receipt
    under redriven/ and leaves dead-letters/, so that a second run finds nothing. An old change never overwrites a newer
    row: it keeps the sequence number it was born with.

    Example: lakestream redrive --dry-run
    """
    from config.settings import load_settings  # noqa: PLC0415 - --help need not load the rest

    settings = load_settings(config)
    if settings.bucket is None:
        raise ConfigurationError(f"{config} names no bucket", hint="add `bucket: {name: …}`")
    if again and not rejects:
        raise ConfigurationError("--again goes with --rejects", hint="a dead letter that was sent is gone")
    if table is not None and rejects:
        raise ConfigurationError("--table does not go with --rejects", hint="all of them are sent, each once")
    with _bar() as bar, ExitStack() as cleanup:
        task = bar.add_task("would redrive" if dry_run else "redriving", total=None)
        redriving: Redrive | RedriveRejects = (
            _of_rejects(settings, settings.bucket, cleanup, again=again)
            if rejects
            else _of_letters(settings, settings.bucket, table)
        )
        redriving.dry_run = dry_run
        redriving.show = lambda done, total: bar.update(task, completed=done, total=total)
        report = redriving.run()
    if as_json:
        typer.echo(json.dumps({"dry_run": dry_run, **report.as_dict()}, indent=2))
    else:
        _print(report, dry_run=dry_run)
    if report.stay:
        raise typer.Exit(DEAD_LETTERS_STAY)


def _places(bucket: BucketSettings, table: str | None) -> list[Place]:
    if table is not None:
        return [Place(bucket.name, f"dead-letters/{table}/")]
    places = [Place(bucket.name, "dead-letters/")]
    if bucket.failed_batches is not None:
        name, _, prefix = bucket.failed_batches.removeprefix("s3://").partition("/")
        places.append(Place(name, prefix))
    return places


def _of_letters(settings: Settings, bucket: BucketSettings, table: str | None) -> Redrive:
    from bridge_lambda.dead_letters import S3Store  # noqa: PLC0415 - see redrive
    from bridge_lambda.publisher import KinesisPublisher, SystemClock  # noqa: PLC0415
    from streaming_job.aws import client  # noqa: PLC0415
    from streaming_job.operations.source_rules import rules_of  # noqa: PLC0415

    s3 = client(settings.aws, "s3")
    return Redrive(
        letters=Letters(s3, _places(bucket, table)),
        tables=rules_of(settings, settings.tables if table is None else (table,)),
        # The publisher retries in its own order; a client that did so by itself would break it.
        publisher=KinesisPublisher(client(settings.aws, "kinesis", attempts=1), settings.source.stream),
        store=S3Store(lambda: s3, bucket.name, bucket.dead_letter_key),
        bucket=bucket.name,
        clock=SystemClock(),
    )


def _of_rejects(settings: Settings, bucket: BucketSettings, cleanup: ExitStack, *, again: bool) -> "RedriveRejects":
    from bridge_lambda.publisher import KinesisPublisher, SystemClock  # noqa: PLC0415 - see redrive
    from streaming_job.aws import client  # noqa: PLC0415
    from streaming_job.operations.redrive_rejects import (  # noqa: PLC0415
        DeltaRejects,
        Receipts,
        RedriveRejects,
        RejectRows,
        SparkRejects,
    )
    from streaming_job.pipeline.locations import Lake  # noqa: PLC0415
    from streaming_job.pipeline.opening import storage_options  # noqa: PLC0415
    from streaming_job.spark import spark_session  # noqa: PLC0415

    location = Lake(settings.lake).shared("rejects")
    rows: RejectRows
    if location.path is not None:
        rows = DeltaRejects(location.path, storage_options(settings, location.path))
    else:
        rows = SparkRejects(cleanup.enter_context(spark_session("lakestream-redrive", settings.spark)), location.sql)
    return RedriveRejects(
        rejects=rows,
        receipts=Receipts(client(settings.aws, "s3"), bucket.name),
        publisher=KinesisPublisher(client(settings.aws, "kinesis", attempts=1), settings.source.stream),
        clock=SystemClock(),
        again=again,
    )


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        console=_err,
        transient=True,
        disable=not _err.is_terminal,
    )


def _print(report: Report, *, dry_run: bool) -> None:
    out = Console(soft_wrap=True)
    facts = RichTable(show_header=False, box=None)
    facts.add_row("dead letters", f"{report.letters:,}")
    facts.add_row("would be redriven" if dry_run else "redriven", f"{report.redriven:,}")
    facts.add_row("records to Kinesis", f"{report.sent:,}")
    facts.add_row("kept back by a filter", f"{report.filtered:,}")
    out.print(facts)
    for reason, count in report.stay.most_common():
        out.print(f"[yellow]stay, {reason}: {count:,}[/]")
        for example in report.examples[reason]:
            out.print(f"  {example}", markup=False, highlight=False)
