"""`lakestream archive`: SQL over the raw archive, without a table, a cluster or a copy of it elsewhere."""

import os
import sys
from base64 import b64encode
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn
from rich.table import Table as RichTable

from config.errors import ConfigurationError
from config.settings import BucketSettings
from streaming_job.operations.archive_statements import EXAMPLES, athena, one_by_one, spark

app = typer.Typer(no_args_is_help=True, help="SQL over the raw archive: every change as it left the bridge.")

ROWS_SHOWN: Final = 100
_CACHE_GIB: Final = 2.0
_INTEGER_BITS: Final = 63
_EXIT_CODES: Final = "Exit codes: 0 answered; 1 the archive could not be read, or the query failed; 2 wrong usage."

_err = Console(stderr=True)

ConfigOption = Annotated[Path, typer.Option("--config", help="The job's configuration; it names the bucket.")]
BucketOption = Annotated[str | None, typer.Option("--bucket", help="Instead of the configuration's.")]
PrefixOption = Annotated[str | None, typer.Option("--prefix", help="Instead of the configuration's.")]
DEFAULT_CONFIG: Final = Path("build/job.yaml")


@app.command(epilog=_EXIT_CODES)
def query(
    sql: Annotated[str, typer.Argument(help="One SELECT. Views: changes, changes_once, latest, unreadable.")],
    *,
    since: Annotated[str | None, typer.Option("--from", help="Hours from this UTC time on: 2026-01-31T08.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="Hours before this UTC time.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    bucket: BucketOption = None,
    prefix: PrefixOption = None,
    cache: Annotated[Path | None, typer.Option(help="Where fetched objects are kept; your cache folder.")] = None,
    cache_gib: Annotated[float, typer.Option(min=0.001, help="How much is kept there at most.")] = _CACHE_GIB,
    rows: Annotated[int, typer.Option(min=1, help="Rows shown at most; --json gives all.")] = ROWS_SHOWN,
    as_json: Annotated[bool, typer.Option("--json", help="The whole answer, one JSON array of objects.")] = False,
) -> None:
    r"""Answer one SELECT over the archive. It can read nothing else and write nowhere.

    Only objects of the hours that --from, --to and the query's own conditions on "date" and "hour" leave are fetched,
    once, into a bounded cache. Attributes go by their names, `new.vehicle.make`; numbers keep all their digits.

    Example: lakestream archive query "SELECT op, count(*) FROM changes WHERE \"date\" = '2026-01-31' GROUP BY op"
    """
    from config.settings import load_settings  # noqa: PLC0415 - help and examples need none of it
    from streaming_job.aws import client  # noqa: PLC0415
    from streaming_job.operations.archive_objects import Archive, Span  # noqa: PLC0415
    from streaming_job.operations.archive_query import parse  # noqa: PLC0415
    from streaming_job.operations.archive_run import Asking  # noqa: PLC0415

    asked = parse(sql)
    span = Span(_moment("--from", since), _moment("--to", until))
    if span.since and span.until and span.since >= span.until:
        raise ConfigurationError("--from is not before --to", hint="both are UTC")
    settings = load_settings(config)
    archive = Archive(client(settings.aws, "s3"), *_place(settings.bucket, config, bucket, prefix))
    folder = cache or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lakestream" / "archive"
    with _bar() as bar:
        task = bar.add_task("looking", total=None)
        asking = Asking(
            archive,
            folder,
            int(cache_gib * 2**30),
            lambda step, done, total: bar.update(task, description=step, completed=done, total=total),
        )
        with asking.answer(asked, span) as answer:
            bar.stop()
            if as_json:
                _print_json(answer.columns, answer.rows)
            else:
                _print_table(answer.columns, answer.rows, rows)
    _err.print(f"[dim]{asking.summary}[/dim]", highlight=False)


@app.command()
def examples(
    name: Annotated[str | None, typer.Argument(help="One of them: only its SQL, for a pipe.")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object: name -> SQL.")] = False,
) -> None:
    """Queries to start from.

    Example: lakestream archive query "$(lakestream archive examples by-hour)"
    """
    known = {example.name: example for example in EXAMPLES}
    if as_json:
        sys.stdout.buffer.write(orjson.dumps({example.name: example.sql for example in EXAMPLES}) + b"\n")
    elif name is None:
        for example in EXAMPLES:
            typer.echo(f"-- {example.name}: {example.says}\n{example.sql};\n")
    elif name in known:
        typer.echo(known[name].sql)
    else:
        raise ConfigurationError(f"no example {name!r}", hint=f"there are {', '.join(known)}")


@app.command()
def statements(
    engine: Annotated[str, typer.Argument(help="athena, databricks or spark.")],
    *,
    name: Annotated[str, typer.Option(help="Of the table and view, with its database where it has one.")] = "changes",
    since: Annotated[str, typer.Option(help="Athena: the first day there is.")] = "2020-01-01",
    config: ConfigOption = DEFAULT_CONFIG,
    bucket: BucketOption = None,
    prefix: PrefixOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array, a text for each statement.")] = False,
) -> None:
    """Print the statements that make the archive a table of Athena, Databricks or Spark.

    Example: lakestream archive statements athena --name analytics.changes
    """
    from config.settings import load_settings  # noqa: PLC0415 - see query

    if bucket is None or prefix is None:
        bucket, prefix = _place(load_settings(config).bucket, config, bucket, prefix)
    match engine:
        case "athena":
            try:
                first = date.fromisoformat(since).isoformat()
            except ValueError as error:
                raise ConfigurationError(f"--since {since!r} is no day", hint="like 2026-01-31") from error
            text = athena(name, bucket, prefix, first)
        case "databricks" | "spark":
            scheme = "s3" if engine == "databricks" else "s3a"
            text = spark(name, f"{scheme}://{bucket}/{prefix}", databricks=engine == "databricks")
        case _:
            raise ConfigurationError(f"no statements for {engine!r}", hint="athena, databricks or spark")
    typer.echo(orjson.dumps(one_by_one(text)).decode() if as_json else text)


def _place(configured: BucketSettings | None, config: Path, bucket: str | None, prefix: str | None) -> tuple[str, str]:
    if bucket is None and configured is None:
        raise ConfigurationError(f"{config} names no bucket", hint="add `bucket: {name: …}`, or give --bucket")
    known = configured or BucketSettings(name=bucket or "")
    return bucket or known.name, known.archive_prefix if prefix is None else prefix


def _moment(option: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigurationError(f"{option} {text!r} is no time", hint="like 2026-01-31 or 2026-01-31T08:30") from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), console=_err, transient=True,
        disable=not _err.is_terminal,
    )  # fmt: skip


# --- the answer -------------------------------------------------------------------------------------------------------


def _print_table(columns: Sequence[str], rows: Iterator[Sequence[Any]], rows_max: int) -> None:
    table = RichTable(*columns, box=None)
    cut = False
    for number, row in enumerate(rows):
        if number == rows_max:
            cut = True
            break
        table.add_row(*(_shown(value) for value in row))
    Console(soft_wrap=True).print(table, markup=False)
    if cut:
        _err.print(f"[dim]the first {rows_max:,} rows; --rows shows more, --json all[/dim]", highlight=False)


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return orjson.dumps(printable(value), default=str, option=orjson.OPT_NAIVE_UTC).decode().strip('"')


def _print_json(columns: Sequence[str], rows: Iterator[Sequence[Any]]) -> None:
    out = sys.stdout.buffer
    before = b"[\n"
    for row in rows:
        document = dict(zip(columns, (printable(value) for value in row), strict=True))
        out.write(before + orjson.dumps(document, default=str, option=orjson.OPT_NAIVE_UTC))
        before = b",\n"
    out.write(b"\n]\n" if before == b",\n" else b"[]\n")
    out.flush()


def printable(value: Any) -> Any:
    """As JSON can say it, numbers as literals with all their digits."""
    match value:
        case bytes():
            return b64encode(value).decode("ascii")
        case Decimal():
            return orjson.Fragment(format(value, "f"))
        case int() if value.bit_length() > _INTEGER_BITS:
            return orjson.Fragment(str(value))
        case dict():
            return {str(name): printable(child) for name, child in value.items()}
        case list() | tuple():
            return [printable(child) for child in value]
        case _:
            return value
