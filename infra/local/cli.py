"""`lakestream local`: the embedded stack's commands. What people read goes to stderr, `--json` to stdout."""

import functools
import json
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, ParamSpec

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from config.errors import LakestreamError
from infra.local.checks import ROOT
from infra.local.emulator import Clients
from infra.local.home import Home
from infra.local.launching import end_as_by_ctrl_c
from infra.local.lean_puts import writing_items_as_they_are
from infra.local.load import Load, LoadPlan, Summary
from infra.local.plan import Mix
from infra.local.restart import restart as stack_restart
from infra.local.settings import LocalSettings, load_local_settings
from infra.local.stack import UpOptions
from infra.local.stack import down as stack_down
from infra.local.stack import up as stack_up
from infra.local.status import Status
from infra.local.status import status as stack_status

INTERRUPTED = 130
UNWELL = 3

_EXIT_CODES = """Exit codes: 0 done; 1 the work was done in part (see the output); 2 not possible as things are, nothing
was started; 3 something did not come up or does not run; 4 no stack runs in this folder; 130 interrupted."""


_err = Console(stderr=True)
# Paths are not cut where nobody looks at them on a screen.
_out = Console(width=None if sys.stdout.isatty() else 200)

app = typer.Typer(
    no_args_is_help=True, help="The embedded stack: AWS emulated on this machine, no account, no containers."
)

_P = ParamSpec("_P")


def _plainly(command: Callable[_P, None]) -> Callable[_P, None]:
    """Errors meant for people become one line and their exit code."""

    @functools.wraps(command)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except LakestreamError as error:
            _err.print(error.line, **_AS_IS)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            _err.print("interrupted, and what it had started is ended", **_AS_IS)
            raise typer.Exit(INTERRUPTED) from error

    return run


_AS_IS: Mapping[str, Any] = {"markup": False, "highlight": False, "soft_wrap": True}

Dir = Annotated[Path, typer.Option("--dir", help="The stack's folder: state, logs, lake, stack.json.")]
Config = Annotated[Path, typer.Option("--config", help="What the stack is made of.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="The emulator's port; 0 takes a free one.")]
MetricsPort = Annotated[int, typer.Option(min=0, max=65535, help="The job's port for /metrics; 0 takes a free one.")]

_DIR = Path("build")
_CONFIG = ROOT / "config" / "local.yaml"


@app.command(epilog=_EXIT_CODES)
@_plainly
def up(
    dir_: Dir = _DIR,
    port: Port = 0,
    config: Config = _CONFIG,
    *,
    no_job: Annotated[bool, typer.Option("--no-job", help="All but the streaming job.")] = False,
    probe: Annotated[
        bool, typer.Option("--probe", help="The independent consumer too; needs `make setup-probe`.")
    ] = False,
    emulator: Annotated[
        str | None,
        typer.Option(
            "--emulator", help="One that runs already and is empty, as in a container: http://127.0.0.1:PORT."
        ),
    ] = None,
    metrics_port: MetricsPort = 0,
    as_json: AsJson = False,
) -> None:
    """Start everything anew and wait until it is ready: emulator, template, mapping, delivery, streaming job.

    Example: lakestream local up --port 4566
    """
    settings = load_local_settings(config)
    home = Home(dir_.absolute())
    end_as_by_ctrl_c()
    began = time.monotonic()
    with _err.status("checking") as shown:
        stack = stack_up(
            home,
            settings,
            UpOptions(port=port, metrics_port=metrics_port, job=not no_job, probe=probe, emulator=emulator),
            lambda step: shown.update(f"{step} …"),
        )
    if as_json:
        _print_json(stack)
        return
    _err.print(f"ready after {time.monotonic() - began:.1f} s", **_AS_IS)
    for name in ("aws_endpoint", "stream", "bucket", "dashboard_url", "metrics_url"):
        _out.print(f"{name:14} {stack[name] or 'none'}", **_AS_IS)
    _out.print(f"{'stack.json':14} {home.stack_file}", **_AS_IS)


@app.command(epilog=_EXIT_CODES)
@_plainly
def down(
    dir_: Dir = _DIR,
    *,
    within: Annotated[float, typer.Option(min=0.1, help="Seconds each process has before it is killed.")] = 30,
    as_json: AsJson = False,
) -> None:
    """End the stack, readers before what they read. With nothing running it says so and is content.

    Example: lakestream local down
    """
    home = Home(dir_.absolute())
    with _err.status("ending") as shown:
        ended = stack_down(home, LocalSettings(stop_within_s=within), lambda name: shown.update(f"ending {name} …"))
    if as_json:
        _print_json({"ended": ended})
        return
    if not ended:
        _err.print(f"nothing runs in {home.path}", **_AS_IS)
    for name, in_time in ended.items():
        _err.print(f"{name}: {'ended' if in_time else 'killed, it did not end in time'}", **_AS_IS)


@app.command(epilog=_EXIT_CODES)
@_plainly
def restart(
    dir_: Dir = _DIR,
    *,
    within: Annotated[float, typer.Option(min=1, help="Seconds until it must be ready.")] = 180,
    as_json: AsJson = False,
) -> None:
    """Start again whatever of the stack has ended, killed or not, and wait until it is ready; what runs is left alone.

    Example: lakestream local restart
    """
    home = Home(dir_.absolute())
    end_as_by_ctrl_c()
    with _err.status("looking") as shown:
        again = stack_restart(home, within, lambda name: shown.update(f"starting {name} again …"))
    if as_json:
        _print_json({"restarted": again})
        return
    if not again:
        _err.print("nothing has ended", **_AS_IS)
    for name, pid in again.items():
        _err.print(f"{name}: runs again, pid {pid}", **_AS_IS)


@app.command(epilog=_EXIT_CODES)
@_plainly
def status(dir_: Dir = _DIR, *, as_json: AsJson = False) -> None:
    """What runs, and what it holds. Exit code 3 when a process is gone or the job is not healthy.

    Example: lakestream local status --json
    """
    found = stack_status(Home(dir_.absolute()))
    if as_json:
        _print_json({**asdict(found), "well": found.well})
    else:
        _show_status(found)
    if not found.well:
        _err.print("`lakestream local restart` starts again what has ended", **_AS_IS)
        raise typer.Exit(UNWELL)


@app.command(epilog=_EXIT_CODES)
@_plainly
def load(
    dir_: Dir = _DIR,
    rate: Annotated[float, typer.Option(min=0.1, help="Writes a second, all kinds together.")] = 50,
    seconds: Annotated[float, typer.Option(min=0.1, help="For how long.")] = 60,
    *,
    seed: Annotated[int, typer.Option(help="The same seed writes the same items, times apart.")] = 1,
    mix: Annotated[str, typer.Option(help="Shares of inserts, updates, deletes.")] = "80,15,5",
    run: Annotated[str | None, typer.Option(help="Names the load: part of its keys. Default: the time.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write telemetry to the table at a rate. Exit code 1 when a write failed.

    Example: lakestream local load --rate 100 --seconds 60 --seed 7
    """
    stack: dict[str, Any] = Home(dir_.absolute()).stack()
    plan = LoadPlan(
        table=next(iter(stack["tables"])),
        rate=rate,
        seconds=seconds,
        seed=seed,
        run=run or f"{time.time_ns() // 1_000_000:x}",
        mix=Mix.parse(mix),
    )
    client = Clients(stack["aws_endpoint"], stack["region"])("dynamodb")
    writer = Load(plan, writing_items_as_they_are(client))
    summary = writer.run() if as_json or not _err.is_terminal else _run_shown(writer, plan)
    if as_json:
        _print_json(asdict(summary))
    else:
        _show_summary(summary)
    if summary.interrupted:
        raise typer.Exit(INTERRUPTED)
    if summary.errors:
        raise typer.Exit(1)


def _run_shown(writer: Load, plan: LoadPlan) -> Summary:
    columns = (SpinnerColumn(), BarColumn(), TextColumn("{task.completed}/{task.total} {task.fields[note]}"))
    done = threading.Event()
    with Progress(*columns, TimeElapsedColumn(), console=_err, transient=True) as bar:
        task = bar.add_task("load", total=plan.count, note="")

        def show() -> None:
            began = time.monotonic()
            while not done.wait(0.2):
                state = writer.progress
                rate = state.done / (time.monotonic() - began)
                note = f"· {rate:.0f}/s · {state.errors} errors · {state.late} late"
                bar.update(task, completed=state.done, note=note)

        watcher = threading.Thread(target=show)
        watcher.start()
        try:
            return writer.run()
        finally:
            done.set()
            watcher.join()


def _show_status(found: Status) -> None:
    table = Table("process", "pid", "state", "log", box=None)
    for process in found.processes:
        state = "[green]runs[/]" if process.alive else "[red]gone[/]"
        table.add_row(process.name, str(process.pid), state, process.log)
    _out.print(table)
    facts = Table(show_header=False, box=None)
    for name, items in found.items.items():
        facts.add_row(f"items in {name}", _or_unknown(items))
    facts.add_row("open shards", _or_unknown(found.shards_open))
    facts.add_row("archive objects", _or_unknown(found.archive_objects))
    facts.add_row("job", found.job)
    _out.print(facts)


def _show_summary(summary: Summary) -> None:
    table = Table(show_header=False, box=None)
    for name, value in asdict(summary).items():
        table.add_row(name, ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value))
    _out.print(table)


def _or_unknown(value: int | None) -> str:
    return "no answer" if value is None else str(value)


def _print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


if __name__ == "__main__":
    app()
