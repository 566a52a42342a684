"""The Databricks job from outside: whether it runs, started, stopped. Never two runs at once, no guessing from silence.

A continuous job is stopped by pausing it first: Databricks would replace a run that was only cancelled within a minute.
"""

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final, TypeVar

from databricks.sdk import WorkspaceClient
from databricks.sdk.errors.base import DatabricksError
from databricks.sdk.errors.platform import (
    DeadlineExceeded,
    InternalError,
    NotFound,
    PermissionDenied,
    TemporarilyUnavailable,
    Unauthenticated,
)
from databricks.sdk.service.jobs import (
    Continuous,
    Job,
    JobSettings,
    PauseStatus,
    RunLifecycleStateV2State,
    RunNowResponse,
    RunStatus,
    TerminationCodeCode,
)

from config.errors import ConfigurationError, LakestreamError

_ATTEMPTS: Final = 5
_LOOK_EVERY_S: Final = 0.2
_LOOK_EVERY_S_MAX: Final = 5.0
_RUNS_LOOKED_AT: Final = 20
_VOLUMES: Final = "/Volumes/"
_Answer = TypeVar("_Answer")

Say = Callable[[str], None]


class JobError(LakestreamError):
    """Databricks did not do it, or not in time."""


class NotThereError(LakestreamError):
    """What was named does not exist."""

    exit_code = 2


class AlreadyRunsError(LakestreamError):
    """A second run was asked for; nothing was started."""

    exit_code = 11


@dataclass(frozen=True)
class Run:
    run_id: int
    state: str
    since: datetime | None
    page: str
    result: str
    """How it ended, with Databricks' words; empty while it has not."""
    ended_well: bool

    @classmethod
    def of(cls, run: Any) -> "Run":
        """Of the API's run, as it is listed or alone."""
        status = run.status or RunStatus()
        ended = status.termination_details
        result = f"{ended.code.value if ended.code else 'ended'} {ended.message or ''}".strip() if ended else ""
        return cls(
            run_id=int(run.run_id),
            state=status.state.value if status.state else "UNKNOWN",
            since=datetime.fromtimestamp(run.start_time / 1000, UTC) if run.start_time else None,
            page=str(run.run_page_url or ""),
            result=result,
            ended_well=ended is not None and ended.code is TerminationCodeCode.SUCCESS,
        )

    @property
    def has_ended(self) -> bool:
        return self.state == RunLifecycleStateV2State.TERMINATED.value

    @property
    def is_at_work(self) -> bool:
        return self.state == RunLifecycleStateV2State.RUNNING.value


@dataclass(frozen=True)
class Commit:
    batch: int
    at: datetime


class DatabricksJob:
    """One job of a workspace, found by name or id."""

    def __init__(self, workspace: WorkspaceClient, job: str, *, say: Say = lambda _: None) -> None:
        self._workspace = workspace
        self._jobs = workspace.jobs
        self._say = say
        self.job_id = int(job) if job.isdigit() else self._named(job)
        found = self._settings()
        self.name = found.name or str(self.job_id)
        self.is_continuous = found.continuous is not None

    def _named(self, name: str) -> int:
        found = [job.job_id for job in _patiently(lambda: list(self._jobs.list(name=name))) if job.job_id is not None]
        if len(found) == 1:
            return found[0]
        if found:
            raise ConfigurationError(
                f"{len(found)} jobs are named {name!r}: {', '.join(map(str, found))}", hint="give the id by --job"
            )
        raise ConfigurationError(
            f"there is no job named {name!r} in this workspace",
            hint="`databricks bundle deploy` makes it; in mode development its name begins with [dev …]",
        )

    def _settings(self) -> JobSettings:
        job: Job = _patiently(lambda: self._jobs.get(self.job_id))
        return job.settings or JobSettings()

    @property
    def is_paused(self) -> bool | None:
        """None of a job that is not continuous."""
        continuous = self._settings().continuous
        return continuous.pause_status is PauseStatus.PAUSED if continuous is not None else None

    def active(self) -> list[Run]:
        """Queued ones too; the newest first."""
        return [
            Run.of(run) for run in _patiently(lambda: list(self._jobs.list_runs(job_id=self.job_id, active_only=True)))
        ]

    def newest(self) -> Run | None:
        """The one at work, else the last there was."""
        listed = _patiently(lambda: list(islice(self._jobs.list_runs(job_id=self.job_id), _RUNS_LOOKED_AT)))
        runs = [Run.of(run) for run in listed]
        return next((run for run in runs if run.is_at_work), runs[0] if runs else None)

    # --- run

    def run(self) -> Run:
        """Started, not yet at work. AlreadyRunsError where one is active."""
        if active := self.active():
            raise self._already(active[0])
        if self.is_paused:
            self._say("resuming")
            self._pause(PauseStatus.UNPAUSED)
            return self._first_after_resuming()
        self._say("starting")
        # The token makes a request that is sent again, because its answer was lost, the same request.
        token = str(uuid.uuid4())
        answer: RunNowResponse = _patiently(lambda: self._jobs.run_now(self.job_id, idempotency_token=token).response)
        run = self._run(int(answer.run_id or 0))
        if run.result.startswith(TerminationCodeCode.SKIPPED.value):
            others = self.active()
            raise self._already(others[0] if others else run)
        return run

    def _already(self, run: Run) -> AlreadyRunsError:
        since = f" since {run.since:%Y-%m-%d %H:%M:%S} UTC" if run.since else ""
        return AlreadyRunsError(
            f"{self.name} has a run, {run.state}{since}: {run.page}", hint="`lakestream job stop` ends it"
        )

    def _first_after_resuming(self) -> Run:
        for left in _looks(within_s=60):
            if active := self.active():
                return active[0]
            if not left:
                break
        raise JobError(f"{self.name} was resumed and no run has come in a minute", hint="its page says why")

    def _pause(self, status: PauseStatus) -> None:
        continuous = self._settings().continuous or Continuous()
        continuous.pause_status = status
        _patiently(lambda: self._jobs.update(self.job_id, new_settings=JobSettings(continuous=continuous)))

    def wait_until_at_work(self, run: Run, within_s: float) -> Run:
        """Until it runs; one that has ended well in the meantime was at work too."""
        for left in _looks(within_s):
            run = self._run(run.run_id)
            self._say(run.state.lower())
            if run.is_at_work or run.ended_well:
                return run
            if run.has_ended:
                raise JobError(f"the run ended before it was at work: {run.result}", hint=run.page)
            if not left:
                break
        raise JobError(f"the run is {run.state} after {within_s:g} s", hint=f"it goes on: {run.page}")

    def _run(self, run_id: int) -> Run:
        return Run.of(_patiently(lambda: self._jobs.get_run(run_id)))

    # --- stop

    def stop(self, within_s: float) -> list[Run]:
        """The runs that were ended, once they are; none where none was active."""
        if self.is_paused is False:
            self._say("pausing")
            self._pause(PauseStatus.PAUSED)
        stopping = self.active()
        if stopping:
            self._say("cancelling")
            _patiently(lambda: self._jobs.cancel_all_runs(job_id=self.job_id, all_queued_runs=True))
        for left in _looks(within_s):
            active = self.active()
            if not active:
                return [self._run(run.run_id) for run in stopping]
            self._say(active[0].state.lower())
            if not left:
                break
        raise JobError(f"{self.name} is still {active[0].state} after {within_s:g} s", hint=active[0].page)

    # --- status

    def last_commit(self, checkpoint: str) -> Commit | None:
        """By the checkpoint's own record of finished batches; None before the first."""
        if not checkpoint.startswith(_VOLUMES):
            raise ConfigurationError(
                f"lake.checkpoint {checkpoint} is in no volume: it cannot be looked at from here",
                hint="ask the job: lakestream_last_commit_timestamp_seconds at /metrics",
            )
        folder = f"{checkpoint.rstrip('/')}/commits"
        try:
            entries = _patiently(lambda: list(self._workspace.files.list_directory_contents(folder)))
        except NotThereError:
            return None
        batches = [
            Commit(int(entry.name), datetime.fromtimestamp(entry.last_modified / 1000, UTC))
            for entry in entries
            if entry.name and entry.name.isdigit() and entry.last_modified
        ]
        return max(batches, key=lambda commit: commit.batch, default=None)


def _looks(within_s: float) -> Iterator[bool]:
    """Looks until the time is over, ever less often; the last one says False."""
    deadline = time.monotonic() + within_s
    pause_s = _LOOK_EVERY_S
    while (left_s := deadline - time.monotonic()) > 0:
        yield True
        time.sleep(min(pause_s, left_s))
        pause_s = min(_LOOK_EVERY_S_MAX, pause_s * 1.3)
    yield False


def _patiently(call: Callable[[], _Answer]) -> _Answer:
    """The SDK waits out throttling and lost connections; a server's error it passes on."""
    for attempt in range(_ATTEMPTS):
        try:
            return call()
        except (InternalError, TemporarilyUnavailable, DeadlineExceeded) as error:
            if attempt == _ATTEMPTS - 1:
                raise JobError(f"Databricks fails: {_said(error)}", hint="try again later") from error
            time.sleep(_LOOK_EVERY_S * 2**attempt)
        except (Unauthenticated, PermissionDenied) as error:
            raise JobError(
                f"Databricks refuses: {_said(error)}",
                hint="a token that is not expired, of somebody with CAN_MANAGE_RUN (run, stop) or CAN_VIEW (status)",
            ) from error
        except NotFound as error:
            raise NotThereError(f"Databricks knows no such thing: {_said(error)}", hint="is --job right?") from error
        except DatabricksError as error:
            raise JobError(f"Databricks refuses: {_said(error)}") from error
        except TimeoutError as error:
            raise JobError(f"Databricks did not answer: {_said(error.__cause__ or error)}") from error
    raise AssertionError("unreachable")


def _said(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
