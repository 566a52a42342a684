"""`lakestream job run | stop | status`: their options, and what they print. The SDK is loaded when one is called."""

import json
import logging
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table as RichTable

from config.errors import ConfigurationError

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

    from streaming_job.operations.job_runs import Commit, DatabricksJob, Run, Say

NOT_AT_WORK: Final = 12
EXIT_CODES: Final = "Exit codes: 0 done; 1 Databricks refused, failed or was too slow; 2 no such job, no credentials"
_HTTP_TIMEOUT_S: Final = 30
_RETRY_S: Final = 120

JobOption = Annotated[
    str, typer.Option("--job", envvar="LAKESTREAM_JOB", help="The job's name or id; the bundle makes `lakestream`.")
]
ProfileOption = Annotated[str | None, typer.Option(help="Of ~/.databrickscfg; else DATABRICKS_HOST and its kin.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")]

app = typer.Typer(no_args_is_help=True, help="The Databricks job from outside a notebook: start, stop, look.")
_err = Console(stderr=True)


@app.command(epilog=f"{EXIT_CODES}; 11 a run is active already, nothing was started.")
def run(
    *,
    job: JobOption = "lakestream",
    profile: ProfileOption = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds until it must be at work; 0: do not wait.")] = 900,
    as_json: JsonOption = False,
) -> None:
    """Start the job, and wait until it is at work. A continuous one is resumed. Refuses a second run at once.

    Example: lakestream job run --profile prod
    """
    with _err.status("looking") as shown:
        found = _job(profile, job, lambda what: shown.update(f"{what} …"))
        started = found.run()
        if wait:
            started = found.wait_until_at_work(started, wait)
    _print(found, started, as_json=as_json)


@app.command(epilog=f"{EXIT_CODES}.")
def stop(
    *,
    job: JobOption = "lakestream",
    profile: ProfileOption = None,
    wait: Annotated[float, typer.Option(min=1, help="Seconds until it must have ended.")] = 600,
    as_json: JsonOption = False,
) -> None:
    """End the job and wait until it has: pauses a continuous one, cancels what runs or is queued. Nothing is lost.

    Example: lakestream job stop --wait 300
    """
    with _err.status("looking") as shown:
        found = _job(profile, job, lambda what: shown.update(f"{what} …"))
        ended = found.stop(wait)
    if as_json:
        _print_json({"job": found.name, "job_id": found.job_id, "ended": [_as_dict(each) for each in ended]})
    elif not ended:
        Console().print(f"{found.name}: nothing was running", highlight=False)
    for each in [] if as_json else ended:
        Console().print(f"{found.name}: ended, {each.result or each.state}: {each.page}", highlight=False)


@app.command(epilog=f"{EXIT_CODES}; 12 it is not at work.")
def status(
    *,
    job: JobOption = "lakestream",
    profile: ProfileOption = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="The job's configuration: by its checkpoint the last commit is told."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Whether the job is at work: its state, its run's page, and when it last committed.

    Example: lakestream job status --config infra/databricks/config/prod.yaml
    """
    checkpoint = _checkpoint(config)
    with _err.status("looking") as shown:
        found = _job(profile, job, lambda what: shown.update(f"{what} …"))
        newest, paused = found.newest(), found.is_paused
        commit = found.last_commit(checkpoint) if checkpoint is not None else None
    state = State(newest, paused, commit, asked=checkpoint is not None)
    _print(found, newest, as_json=as_json, state=state)
    if newest is None or not newest.is_at_work:
        raise typer.Exit(NOT_AT_WORK)


@dataclass(frozen=True)
class State:
    run: "Run | None"
    paused: bool | None
    commit: "Commit | None"
    asked: bool
    """For the last commit; without a configuration nobody knows where it stands."""

    @property
    def committed(self) -> str:
        if self.commit is None:
            return "none yet" if self.asked else "unknown: give --config"
        ago = datetime.now(UTC) - self.commit.at
        return f"batch {self.commit.batch}, {self.commit.at:%Y-%m-%d %H:%M:%S} UTC, {int(ago.total_seconds())} s ago"


def _checkpoint(config: Path | None) -> str | None:
    from config.settings import load_settings  # noqa: PLC0415 - --help need not load the rest

    return load_settings(config).lake.checkpoint if config is not None else None


def _job(profile: str | None, job: str, say: "Say") -> "DatabricksJob":
    from streaming_job.operations.job_runs import DatabricksJob  # noqa: PLC0415 - the SDK takes a second to load

    return DatabricksJob(_workspace(profile), job, say=say)


def _workspace(profile: str | None) -> "WorkspaceClient":
    from databricks.sdk import WorkspaceClient  # noqa: PLC0415 - see _job
    from databricks.sdk.core import Config  # noqa: PLC0415

    logging.getLogger("databricks.sdk").setLevel("ERROR")  # what it cannot find out about a host is no news
    try:
        return WorkspaceClient(
            config=Config(
                profile=profile,
                product="lakestream",
                http_timeout_seconds=_HTTP_TIMEOUT_S,
                retry_timeout_seconds=_RETRY_S,
            )
        )
    except ValueError as error:
        raise ConfigurationError(
            f"no way into Databricks: {' '.join(str(error).split())[:300]}",
            hint="set DATABRICKS_HOST and DATABRICKS_TOKEN, or name a --profile",
        ) from error


def _print(job: "DatabricksJob", run: "Run | None", *, as_json: bool, state: State | None = None) -> None:
    if as_json:
        more: dict[str, Any] = {}
        if state is not None:
            more = {"paused": state.paused, "last_commit": asdict(state.commit) if state.commit else None}
        _print_json({"job": job.name, "job_id": job.job_id, "run": _as_dict(run), **more})
        return
    facts = RichTable(show_header=False, box=None)
    facts.add_row("job", f"{job.name} ({job.job_id}){', paused' if state and state.paused else ''}")
    facts.add_row("state", _shown(run))
    if run is not None:
        facts.add_row("run", run.page)
    if state is not None:
        facts.add_row("last commit", state.committed)
    Console(soft_wrap=True).print(facts)


def _shown(run: "Run | None") -> str:
    if run is None:
        return "[yellow]never started[/]"
    colour = "green" if run.is_at_work or run.ended_well else "red" if run.result else "yellow"
    since = f" since {run.since:%Y-%m-%d %H:%M:%S} UTC" if run.since and not run.has_ended else ""
    return f"[{colour}]{run.state.lower()}[/]{since} {run.result}".strip()


def _as_dict(run: "Run | None") -> dict[str, Any] | None:
    return asdict(run) if run is not None else None


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, default=lambda moment: moment.isoformat()))
