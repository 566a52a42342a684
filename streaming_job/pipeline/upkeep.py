"""Compaction, purge and vacuum of the tables, in the pauses between batches and on a budget.

Upkeep in another process would conflict with the merges; here nobody else commits. Of each minute at most `budget_ms`
goes to it: a task that took longer is paid back before the next one starts.
"""

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from config.settings import UpkeepSettings
from config.tables import DeleteRule, LakeRules
from streaming_job.errors import StopJobError
from streaming_job.pipeline.arrow import pc
from streaming_job.pipeline.current import PURGED_PROPERTY, expiry_rule
from streaming_job.pipeline.lease import Clock
from streaming_job.pipeline.merge import Guard, LakeTable

log = logging.getLogger("lakestream.upkeep")

VACUUMED_PROPERTY: Final = "lakestream.vacuumedMs"
_MINUTE_MS: Final = 60_000
_HOUR_MS: Final = 3_600_000
_RETRY_AFTER_MS: Final = 10 * _MINUTE_MS


class Budget:
    """Milliseconds that may be spent: they come back over a minute, and a debt is waited off."""

    def __init__(self, per_minute_ms: int, clock: Clock) -> None:
        self._per_minute_ms = per_minute_ms
        self._clock = clock
        self._credit_ms = float(per_minute_ms)
        self._counted_ms = clock()

    def allows(self) -> bool:
        now_ms = self._clock()
        earned = (now_ms - self._counted_ms) / _MINUTE_MS * self._per_minute_ms
        self._credit_ms = min(self._credit_ms + earned, float(self._per_minute_ms))
        self._counted_ms = now_ms
        return self._credit_ms > 0

    def spend(self, spent_ms: float) -> None:
        self._credit_ms -= spent_ms


@dataclass
class Task:
    """A piece of upkeep: `is_due` is cheap, `run` says what it did, or None when there was nothing to do."""

    name: str
    table: LakeTable
    is_due: Callable[[], bool]
    run: Callable[[], str | None]
    not_before_ms: int = 0


class Upkeep:
    """Runs at most one due task a pause, the tables by turns."""

    def __init__(self, settings: UpkeepSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._budget = Budget(settings.budget_ms, clock)
        self._tasks: list[Task] = []

    def take_on(self, tasks: Iterable[Task]) -> None:
        self._tasks.extend(tasks)

    def run_one(self) -> str | None:
        """What was done, for the log; None when nothing was due or the budget is spent."""
        if not self._budget.allows():
            return None
        now_ms = self._clock()
        for position, task in enumerate(self._tasks):
            if now_ms >= task.not_before_ms and task.is_due():
                self._tasks.append(self._tasks.pop(position))
                return self._run(task)
        return None

    def _run(self, task: Task) -> str | None:
        started = time.perf_counter()
        try:
            done = task.run()
        except StopJobError:
            raise
        except Exception as error:  # noqa: BLE001 - upkeep that fails, for whatever reason, is late; the batches go on
            task.not_before_ms = self._clock() + _RETRY_AFTER_MS
            log.warning(
                "upkeep failed", extra={"task": task.name, "table": str(task.table.location), "why": str(error)}
            )
            return None
        finally:
            spent_ms = (time.perf_counter() - started) * 1000
            self._budget.spend(spent_ms)
        if done is not None:
            log.info("upkeep", extra={"task": task.name, "table": str(task.table.location), "done": done})
        return done


def compaction(table: LakeTable, settings: UpkeepSettings, guard: Guard) -> Task:
    """After so many commits, each of which left a small file."""
    compacted_at = table.commits

    def is_due() -> bool:
        return table.commits - compacted_at >= settings.compact_after_commits

    def run() -> str:
        nonlocal compacted_at
        removed = table.compact(target_bytes=settings.compact_target_bytes, guard=guard)
        compacted_at = table.commits
        return f"{removed} files joined"

    return Task("compaction", table, is_due, run)


def vacuum(table: LakeTable, settings: UpkeepSettings, clock: Clock, guard: Guard) -> Task:
    """Once a day; when is written down in the table, so that a job that restarts often does it too."""
    vacuumed_ms = int(table.properties().get(VACUUMED_PROPERTY, "0"))

    def is_due() -> bool:
        return clock() - vacuumed_ms >= settings.vacuum_every_s * 1000

    def run() -> str:
        nonlocal vacuumed_ms
        vacuumed_ms = clock()
        table.set_properties({VACUUMED_PROPERTY: str(vacuumed_ms)}, guard)
        return f"{table.vacuum(settings.vacuum_retention_h)} files deleted"

    return Task("vacuum", table, is_due, run)


def purge(table: LakeTable, rules: LakeRules, settings: UpkeepSettings, clock: Clock, guard: Guard) -> Task | None:
    """Tombstones past their window, where a rule says `hard`."""
    windows = {False: rules.deletes, True: expiry_rule(rules)}
    if not any(rule.policy == "hard" for rule in windows.values()):
        return None
    next_ms = 0

    def is_due() -> bool:
        return clock() >= next_ms

    def run() -> str | None:
        nonlocal next_ms
        next_ms = clock() + settings.purge_every_s * 1000
        purged = purge_now(table, windows, clock(), guard)
        return f"{purged} tombstones purged" if purged else None

    return Task("purge", table, is_due, run)


def purge_now(table: LakeTable, windows: dict[bool, DeleteRule], now_ms: int, guard: Guard) -> int:
    """Says first until when tombstones may be gone, then deletes them: a crash between the two loses nothing."""
    where = f"_deleted AND ({' OR '.join(_past(now_ms, is_expiry, rule) for is_expiry, rule in windows.items())})"
    table.refresh()
    doomed = table.read(["_created_ms"], where)["_created_ms"]
    if not len(doomed):
        return 0
    newest_ms = now_ms if doomed.null_count else pc.max(doomed).as_py() + 1
    before_ms = max(newest_ms, int(table.properties().get(PURGED_PROPERTY, "0")))
    table.set_properties({PURGED_PROPERTY: str(before_ms)}, guard)
    return table.delete(where, guard)


def _past(now_ms: int, is_expiry: bool, rule: DeleteRule) -> str:  # noqa: FBT001 - the windows' key
    if rule.policy != "hard":
        return "false"
    kind = f"coalesce(_ttl, false) = {str(is_expiry).lower()}"
    return f"({kind} AND _ingest_ts < {_moment(now_ms - rule.window_h * _HOUR_MS)})"


def _moment(at_ms: int) -> str:
    """As text: each engine reads it as its own kind of timestamp."""
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    return f"'{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond:06d}Z'"
