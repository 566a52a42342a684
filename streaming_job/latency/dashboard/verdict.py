"""The page's first sentence: is it fresh, is anything wrong. Decided here, in one place, from plain values."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from config.limits import RETENTION_GUARD
from streaming_job.latency.hops import CHAIN

SILENT_AFTER_S: Final = 3.5
"""Three looks without an answer, and a little: one slow answer is no news."""
IDLE_AFTER_S: Final = 60.0
"""The percentiles' window: with no change in it there is nothing to measure."""

KINESIS: Final = "Kinesis"
ARCHIVE: Final = "the archive"
TABLE_STREAM: Final = "the table's stream"

ON_THE_WAY: Final = frozenset(("mapping", "bridge"))
"""Processes that a change passes before the job; the others, delivery and probe, only look on."""

HOP_NAMES: Final = {
    "origin_to_bridge": "DynamoDB to bridge",
    "bridge": "in the bridge",
    "bridge_to_kinesis": "bridge to Kinesis",
    "kinesis_to_batch": "waiting in Kinesis",
    "batch_to_commit": "batch to commit",
}
assert tuple(HOP_NAMES) == CHAIN


class Level(StrEnum):
    GOOD = "good"
    WATCH = "watch"
    BAD = "bad"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Verdict:
    state: str
    level: Level
    sentence: str
    detail: str
    number_ms: float | None = None
    number_says: str = ""
    hop: str | None = None
    """The hop that is to blame, by its name."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Problem:
    level: Level
    what: str
    do: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Keeping:
    """How much of the time that a stream keeps a change its oldest unread one has used up."""

    stream: str
    used: float
    left_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known at this second."""

    target_ms: float
    job_answered: bool
    """Ever, since the page's server runs."""
    job_silent_s: float = 0.0
    """0 while it answers."""
    job_refused: bool = False
    job_ready: bool = True
    """By its own word."""
    job_stalled_s: float = 0.0
    """It answers, and has committed nothing nor looked for longer than it may; 0 while it does."""
    path_silent: tuple[str, ...] = ()
    """Processes before the job that do not answer: what waits there cannot be seen."""
    commit_age_s: float | None = None
    p95_ms: float | None = None
    recent_ms: float | None = None
    """Mean of the changes committed in the last seconds."""
    lag_ms: float = 0.0
    """Age of the oldest change known to wait, or how far the reading is behind; the larger."""
    hops_recent_ms: Mapping[str, float] = field(default_factory=dict)
    stream_backlog: float = 0.0
    keeping: Keeping | None = None
    """Of the stream where it is worst."""
    waits_in: str = KINESIS
    """Where changes are until the job reads them."""


def verdict(facts: Facts) -> Verdict:
    """The first that applies; worse before better, blindness before confidence."""
    found = _of_retention(facts) or _of_silence(facts) or _of_lag(facts) or _of_rest(facts) or _of_percentiles(facts)
    # Where the job reads the archive, the same sentences are true of it.
    return replace(found, detail=found.detail.replace(KINESIS, facts.waits_in))


def _of_retention(facts: Facts) -> Verdict | None:
    keeping = facts.keeping
    if keeping is None or keeping.used <= RETENTION_GUARD:
        return None
    return Verdict(
        "endangered",
        Level.BAD,
        "Changes are about to be lost." if keeping.used < 1 else "Changes are being lost.",
        f"The oldest unread change has used up {keeping.used:.0%} of the time that {keeping.stream} keeps it. "
        "Raise the retention where that can be done, then see why the reader is behind.",
        max(0.0, keeping.left_ms),
        "until the oldest unread change is gone",
        "kinesis_to_batch" if keeping.stream == KINESIS else "origin_to_bridge",
    )


def _of_silence(facts: Facts) -> Verdict | None:
    if not facts.job_answered:
        return Verdict(
            "connecting",
            Level.UNKNOWN,
            "Waiting for the job's first answer.",
            "Nothing is known yet. The job takes some seconds to start.",
        )
    if facts.job_silent_s >= SILENT_AFTER_S:
        stopped = facts.job_refused
        since = facts.commit_age_s if facts.commit_age_s is not None else facts.job_silent_s
        return Verdict(
            "stopped" if stopped else "silent",
            Level.BAD,
            "The job is stopped." if stopped else "The job does not answer.",
            "Nothing is committed. New changes are safe: they wait in Kinesis until the job runs again.",
            since * 1000,
            "since the last commit",
            "kinesis_to_batch",
        )
    if facts.job_stalled_s:
        return Verdict(
            "stalled",
            Level.BAD,
            "The job is stalled.",
            "It answers, but a batch or a look at its source does not end. New changes are safe: they wait in Kinesis. "
            "See its log; if nothing moves there, start it again.",
            facts.job_stalled_s * 1000,
            "since it last showed progress",
            "kinesis_to_batch",
        )
    return None


def _of_lag(facts: Facts) -> Verdict | None:
    if facts.lag_ms > facts.target_ms:
        if facts.path_silent:
            hop = "origin_to_bridge"
        elif facts.stream_backlog and facts.hops_recent_ms:
            hop = max(facts.hops_recent_ms, key=lambda name: facts.hops_recent_ms[name])
        else:
            hop = "kinesis_to_batch"
        return Verdict(
            "late",
            Level.BAD,
            "Late: changes are waiting.",
            f"The longest wait is {HOP_NAMES[hop]}." if hop != "kinesis_to_batch" else _KINESIS_WAIT,
            facts.lag_ms,
            "the oldest change still waiting",
            hop,
        )
    if facts.path_silent:
        return Verdict(
            "blind",
            Level.BAD,
            f"No answer from {' and '.join(facts.path_silent)}.",
            "What waits before Kinesis cannot be seen from here, so nothing is called fresh.",
        )
    return None


_KINESIS_WAIT: Final = "They are in Kinesis; the job has not committed them yet."


def _of_rest(facts: Facts) -> Verdict | None:
    if facts.commit_age_s is None and not facts.job_ready:
        return Verdict(
            "starting",
            Level.UNKNOWN,
            "The job is starting.",
            "It has neither committed a batch nor looked at its source yet.",
        )
    if facts.commit_age_s is None:
        return Verdict(
            "empty", Level.UNKNOWN, "No change has arrived yet.", "The job is ready. The first change will show here."
        )
    if facts.p95_ms is None:
        return Verdict(
            "idle",
            Level.GOOD,
            "Up to date, and quiet.",
            "Nothing was written lately and nothing is waiting.",
            facts.commit_age_s * 1000,
            "since the last commit",
        )
    return None


def _of_percentiles(facts: Facts) -> Verdict:
    assert facts.p95_ms is not None
    worst = max(facts.hops_recent_ms, key=lambda name: facts.hops_recent_ms[name], default=None)
    said = "p95 of the last minute, origin to queryable"
    if facts.p95_ms <= facts.target_ms:
        longest = f" The longest part is {HOP_NAMES[worst]}." if worst else ""
        return Verdict(
            "fresh",
            Level.GOOD,
            "Fresh.",
            f"95 of 100 changes can be queried within this time.{longest}",
            facts.p95_ms,
            said,
        )
    if facts.recent_ms is not None and facts.recent_ms <= facts.target_ms:
        return Verdict(
            "recovering",
            Level.WATCH,
            "Fresh again.",
            f"The newest changes take {facts.recent_ms / 1000:.1f} s; the slow ones are still in the last minute.",
            facts.p95_ms,
            said,
        )
    hop = worst or "kinesis_to_batch"
    return Verdict("late", Level.BAD, "Late.", f"Most of the time goes by {HOP_NAMES[hop]}.", facts.p95_ms, said, hop)


_RECENT_PROBLEMS: Final = (
    (
        "dead_letters",
        Level.BAD,
        "{} dead letters in 10 minutes",
        "see the reason in the object, mend it, then `lakestream redrive`",
    ),
    (
        "rejects",
        Level.BAD,
        "{} rejects in 10 minutes",
        "the table rejects holds each record with its reason; `lakestream redrive` after the mend",
    ),
)
_COUNTED_PROBLEMS: Final = (
    ("losses", Level.BAD, "{} spans of the stream were lost", "`lakestream rebuild` for the tables concerned"),
    (
        "trimmed",
        Level.BAD,
        "{} shards were gone before they were read",
        "changes may be missing: `lakestream verify`, and rebuild what differs",
    ),
    (
        "parked",
        Level.BAD,
        "{} changes parked: their table cannot be written",
        "read the job's log for the table's error; they are drained in order once it is mended",
    ),
    (
        "refused",
        Level.BAD,
        "{} changes refused: their stream is older than one before it",
        "state the order (`lake.streams`), start the job again; see the runbook of the region failover",
    ),
    (
        "unproven",
        Level.WATCH,
        "{} tables unproven: their stream was made anew",
        "`lakestream verify` says whether anything is missing; rebuild what differs",
    ),
    (
        "near_expiry",
        Level.WATCH,
        "{} changes came near the end of the stream's 24 h",
        "the mapping was behind or disabled: `lakestream verify` says whether any is missing",
    ),
    ("archive_failures", Level.WATCH, "{} writes to the archive failed", "they are tried again; look at the bucket"),
    (
        "latency_flush_failures",
        Level.WATCH,
        "{} flushes of latency figures failed",
        "figures are kept and tried again; look at the disk or the bucket of the lake",
    ),
    (
        "skewed",
        Level.WATCH,
        "{} hops of the last minute came out below zero",
        "two machines' clocks disagree: check their time service",
    ),
)


def problems(
    figures: Mapping[str, Any],
    lately: Mapping[str, float],
    verify: Mapping[str, Any] | None,
    silent: Sequence[str] = (),
) -> list[Problem]:
    """What a person should look at, worst first, each with what to do. `lately`: increments of the last 10 minutes."""
    found = [
        _different(verify["tables"]) if verify is not None and verify["verdict"] == "different" else None,
        *(_when(lately.get(name), level, what, do) for name, level, what, do in _RECENT_PROBLEMS),
        *(_when(figures.get(name), level, what, do) for name, level, what, do in _COUNTED_PROBLEMS),
        *(Problem(Level.WATCH, f"{name} does not answer", "see its log; no change waits for it") for name in silent),
    ]
    return [problem for problem in found if problem is not None]


def _different(tables: Sequence[str]) -> Problem:
    return Problem(
        Level.BAD,
        f"verify found differences between source and lake: {', '.join(sorted(tables))}",
        "`lakestream verify --json` lists the keys; `lakestream replay --repair` mends them",
    )


def _when(count: float | None, level: Level, what: str, do: str) -> Problem | None:
    return Problem(level, what.format(f"{count:,.0f}"), do) if count else None
