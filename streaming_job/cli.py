"""`lakestream`: every command a person needs, from the embedded stack to the proof that source and lake agree.

Exit codes: 0 done; 1 it failed; 2 wrong usage or configuration, nothing was started; 3 what was started did not come
up, and was ended; 4 there is no stack; 5 `verify` found differences; 6 `verify` could not settle everything.
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from config.errors import LakestreamError
from infra.local.cli import app as local_app

app = typer.Typer(
    name="lakestream", no_args_is_help=True, help=__doc__, rich_markup_mode="rich", pretty_exceptions_enable=False
)
app.add_typer(local_app, name="local")

ConfigOption = Annotated[
    Path, typer.Option("--config", help="The job's configuration; `local up` writes one to build/job.yaml.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")]
DEFAULT_CONFIG = Path("build/job.yaml")


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


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, default=str))


def main() -> None:
    """What the `lakestream` script calls: an error meant for a person is one line, never a stack trace."""
    try:
        app()
    except LakestreamError as error:
        Console(stderr=True).print(
            f"[red]error:[/red] {error.what}" + (f"\n  [dim]{error.hint}[/dim]" if error.hint else ""), highlight=False
        )
        sys.exit(error.exit_code)
