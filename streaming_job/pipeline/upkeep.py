"""Compaction, purge and vacuum of the tables, in the pauses between batches and on a budget.

Upkeep in another process would conflict with the merges; here nobody else commits. Of each minute at most `budget_ms`
goes to it: a task that took longer is paid back before the next one starts. What a person asks for (`lakestream
maintain`) is done whether or not it is due, as much in a pause as the budget gives a minute, which pays afterwards.
"""

import logging
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, TypeVar

from config.settings import UpkeepSettings
from config.tables import DeleteRule, LakeRules
from streaming_job.errors import StopJobError
from streaming_job.pipeline.arrow import pc
from streaming_job.pipeline.current import PURGED_PROPERTY, expiry_rule
from streaming_job.pipeline.lease import Clock
from streaming_job.pipeline.locations import Location
from streaming_job.pipeline.merge import Guard, LakeTable, no_guard

log = logging.getLogger("lakestream.upkeep")

_T = TypeVar("_T")

VACUUMED_PROPERTY: Final = "lakestream.vacuumedMs"
_REMEMBERED: Final = "delta.deletedFileRetentionDuration"
_SAID_BY_US: Final = re.compile(r"interval \d+ hours", re.ASCII)
_REMEMBERED_H: Final = 168
"""How long Delta's checkpoints tell of a file that went, where the table does not say."""
_MINUTE_MS: Final = 60_000
_HOUR_MS: Final = 3_600_000
_LOOK_EVERY_MS: Final = 15_000
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
    location: Location
    is_due: Callable[[], bool]
    run: Callable[[], str | None]
    plan: Callable[[], str | None]
    """What `run` would do now."""
    not_before_ms: int = 0


@dataclass(frozen=True)
class Outcome:
    """What one task came to; neither of the two: there was nothing to do."""

    task: str
    location: str
    done: str | None = None
    failure: str | None = None


Tell = Callable[[Sequence[Outcome]], None]


@dataclass
class _Asked:
    """What a person asked for, and who is told when all of it is done."""

    of: str
    waiting: deque[Task]
    tell: Tell
    outcomes: list[Outcome] = field(default_factory=list)


class Upkeep:
    """Runs at most one task a pause, the tables by turns."""

    def __init__(self, settings: UpkeepSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._budget = Budget(settings.budget_ms, clock)
        self._tasks: list[tuple[str | None, Task]] = []
        self._asked: deque[_Asked] = deque()

    def take_on(self, tasks: Iterable[Task], of: str | None = None) -> None:
        """`of`: the source table they belong to; None for those of the tables that all share."""
        self._tasks.extend((of, task) for task in tasks)

    def let_go(self, location: Location) -> None:
        """The table is no longer ours."""
        self._tasks = [(of, task) for of, task in self._tasks if task.location != location]

    def ask(self, of: str, tell: Tell) -> None:
        """All tasks of a source table, and of what it shares with others, as soon as pauses come."""
        self._asked.append(_Asked(of, deque(task for whose, task in self._tasks if whose in (of, None)), tell))

    def run_one(self) -> str | None:
        """What was done, for the log; None when nothing was due or the budget is spent."""
        if self._asked:
            return self._run_asked(self._asked[0])
        if not self._budget.allows():
            return None
        now_ms = self._clock()
        for position, (_, task) in enumerate(self._tasks):
            if now_ms >= task.not_before_ms and self._is_due(task):
                self._tasks.append(self._tasks.pop(position))
                return self._run(task).done
        return None

    def _run_asked(self, asked: _Asked) -> str | None:
        """As much as one pause may take; at least one task."""
        began = time.perf_counter()
        done: list[Outcome] = []
        while asked.waiting and (not done or (time.perf_counter() - began) * 1000 < self._settings.budget_ms):
            done.append(self._run(asked.waiting.popleft()))
        asked.outcomes += done
        if not asked.waiting:
            self._asked.popleft()
            attempt("answer", asked.of, lambda: asked.tell(asked.outcomes))
        return ", ".join(outcome.done for outcome in done if outcome.done is not None) or None

    def _is_due(self, task: Task) -> bool:
        is_due, failure = attempt(task.name, str(task.location), task.is_due)
        if failure is not None:
            self._put_off(task)
        return bool(is_due)

    def _run(self, task: Task) -> Outcome:
        started = time.perf_counter()
        outcome = perform(task)
        self._budget.spend((time.perf_counter() - started) * 1000)
        if outcome.failure is not None:
            self._put_off(task)
        return outcome

    def _put_off(self, task: Task) -> None:
        task.not_before_ms = self._clock() + _RETRY_AFTER_MS


def perform(task: Task) -> Outcome:
    where = str(task.location)
    done, failure = attempt(task.name, where, task.run)
    if done is not None:
        log.info("upkeep", extra={"task": task.name, "table": where, "done": done})
    return Outcome(task.name, where, done, failure)


def attempt(task: str, where: str, do: Callable[[], _T]) -> tuple[_T | None, str | None]:
    """What it gives, or why it failed: upkeep that fails, for whatever reason, is late; nothing else is held by it."""
    try:
        return do(), None
    except StopJobError:
        raise
    except Exception as error:  # noqa: BLE001 - see above
        log.warning("upkeep failed", extra={"task": task, "table": where, "why": str(error)})
        return None, f"{type(error).__name__}: {error}"


def upkeep_of(
    table: LakeTable, past: LakeTable, rules: LakeRules, settings: UpkeepSettings, clock: Clock, *, guard: Guard
) -> list[Task]:
    """Everything one source table's two tables need."""
    tasks = [purge(table, rules, settings, clock, guard)]
    tasks += [compaction(each, settings, clock, guard) for each in (table, past)]
    tasks += [vacuum(each, settings, clock, guard) for each in (table, past)]
    return [task for task in tasks if task is not None]


def shared_upkeep(table: LakeTable, settings: UpkeepSettings, clock: Clock) -> list[Task]:
    """Of a table that all source tables share: others may write to it meanwhile, and are only made to try again."""
    return [compaction(table, settings, clock, no_guard), vacuum(table, settings, clock, no_guard)]


def compaction(table: LakeTable, settings: UpkeepSettings, clock: Clock, guard: Guard) -> Task:
    """When so many small files more lie there than the last compaction left.

    What is due joins them in steps: joined into ever larger files, the past of an hour would be written again each
    minute, and the stream wait for it. Who asks for it, due or not, gets the large ones.
    """
    full = settings.compact_target_bytes
    step = min(settings.compact_step_bytes, full) if table.engine == "rust" else full
    target, look_ms, left = full, 0, 0

    def is_due() -> bool:
        nonlocal look_ms, target
        if clock() < look_ms:
            return False
        look_ms = clock() + _LOOK_EVERY_MS
        table.refresh()
        if table.small_files(step) - left < settings.compact_after_files:
            return False
        target = step
        return True

    def run() -> str | None:
        nonlocal left, target
        table.refresh()
        removed = table.compact(target_bytes=target, guard=guard)
        left, target = table.small_files(step), full
        return f"{removed} files joined" if removed else None

    def plan() -> str | None:
        small = table.small_files(full)
        return f"about {small} small files to join" if small else None

    return Task("compaction", table.location, is_due, run, plan)


def vacuum(table: LakeTable, settings: UpkeepSettings, clock: Clock, guard: Guard) -> Task:
    """Once a day; when is written down in the table, so that a job that restarts often does it too."""
    vacuumed_ms = int(table.properties().get(VACUUMED_PROPERTY, "0"))
    retention_h = settings.vacuum_retention_h

    def is_due() -> bool:
        return clock() - vacuumed_ms >= settings.vacuum_every_s * 1000

    def run() -> str:
        nonlocal vacuumed_ms
        vacuumed_ms = clock()
        table.set_properties({VACUUMED_PROPERTY: str(vacuumed_ms)} | _memory_for(table, retention_h), guard)
        return f"{table.vacuum(retention_h)} files deleted"

    def plan() -> str | None:
        files = table.unreferenced_files(retention_h)
        return f"{files} files older than {retention_h} h to delete" if files else None

    return Task("vacuum", table.location, is_due, run, plan)


def _memory_for(table: LakeTable, retention_h: int) -> dict[str, str]:
    """A file that no checkpoint tells of any more goes by its own age, however short ago it was replaced.

    What a longer retention once said follows a shorter one, or no vacuum of that would be let through. Not with Spark,
    which would ask for as long a log.
    """
    is_said = _SAID_BY_US.fullmatch(table.properties().get(_REMEMBERED, "")) is not None
    if table.engine == "spark" or (retention_h <= _REMEMBERED_H and not is_said):
        return {}
    return {_REMEMBERED: f"interval {retention_h} hours"}


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

    def plan() -> str | None:
        doomed = table.count(_past_window(windows, clock()))
        return f"{doomed} tombstones to purge" if doomed else None

    return Task("purge", table.location, is_due, run, plan)


def purge_now(table: LakeTable, windows: dict[bool, DeleteRule], now_ms: int, guard: Guard) -> int:
    """Says first until when tombstones may be gone, then deletes them: a crash between the two loses nothing."""
    where = _past_window(windows, now_ms)
    table.refresh()
    doomed = table.read(["_created_ms"], where)["_created_ms"]
    if not len(doomed):
        return 0
    newest_ms = now_ms if doomed.null_count else pc.max(doomed).as_py() + 1
    before_ms = max(newest_ms, int(table.properties().get(PURGED_PROPERTY) or 0))
    table.set_properties({PURGED_PROPERTY: str(before_ms)}, guard)
    return table.delete(where, guard)


def _past_window(windows: dict[bool, DeleteRule], now_ms: int) -> str:
    return f"_deleted AND ({' OR '.join(_past(now_ms, is_expiry, rule) for is_expiry, rule in windows.items())})"


def _past(now_ms: int, is_expiry: bool, rule: DeleteRule) -> str:  # noqa: FBT001 - the windows' key
    if rule.policy != "hard":
        return "false"
    kind = f"coalesce(_ttl, false) = {str(is_expiry).lower()}"
    return f"({kind} AND _ingest_ts < {_moment(now_ms - rule.window_h * _HOUR_MS)})"


def _moment(at_ms: int) -> str:
    """As text: each engine reads it as its own kind of timestamp."""
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    return f"'{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond:06d}Z'"
