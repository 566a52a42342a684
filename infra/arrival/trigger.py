"""One run for all that has landed: pure but for the calls of `JobsApi`.

A run covers an object when it was started after the object landed, or has not begun to read: an available-now run reads
whatever is there when it begins. As long as some run covers the newest object there is nothing to start. One that was
started in time and failed covers nothing; what its job retries by itself has not failed yet.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from infra.arrival.jobs_api import JobsApi, RefusedError, Run

CLOCKS_MS: Final = 2_000
"""How far the clocks of the queue and of Databricks may be apart."""
_NOT_BEGUN: Final = frozenset({"BLOCKED", "PENDING", "QUEUED"})


@dataclass(frozen=True, slots=True)
class Outcome:
    run: Run
    started: bool
    """By this call; else it was there."""
    covers: bool
    """False: come back when more is known."""


def cover(landed_ms: int, api: JobsApi) -> Outcome:
    """A run that covers what landed until then, started where there is none. Never a second one beside it."""
    runs = api.newest_runs()
    if known := next((run for run in runs if covers(run, landed_ms)), None):
        return Outcome(known, started=False, covers=True)
    run = api.run(_follow(runs, landed_ms, api))
    return Outcome(run, started=True, covers=covers(run, landed_ms))


def covers(run: Run, landed_ms: int) -> bool:
    if run.state in _NOT_BEGUN:
        return True
    return run.start_ms >= landed_ms + CLOCKS_MS and run.result in ("", "SUCCESS")


def _follow(runs: Iterable[Run], landed_ms: int, api: JobsApi) -> int:
    """The token says which run this one follows: two that see the same runs at the same time start one between them."""
    token = f"after-{next((run.run_id for run in runs), 'none')}"
    try:
        return api.run_now(token)
    except RefusedError:
        # The run of that token may have been deleted, which Databricks does not forget.
        return api.run_now(f"{token}-{landed_ms}")


def check_one_at_a_time(api: JobsApi) -> None:
    """Before the first start: that no two run at once is the job's own setting, and it must be on."""
    settings = api.settings()
    name = settings.get("name", api.job_id)
    if settings.get("max_concurrent_runs", 1) != 1:
        raise RefusedError(
            f"job {name} may run {settings['max_concurrent_runs']} times at once",
            hint="max_concurrent_runs: 1, as infra/databricks has it",
        )
    if settings.get("continuous"):
        raise RefusedError(
            f"job {name} runs continuously: there is nothing to start", hint="name the on-arrival job's id"
        )
