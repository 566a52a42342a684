"""The mapping's decisions: a state machine without clock, network or threads.

A shard has as many lanes as its parallelization factor; an item's changes always take the same lane, and a lane has one
batch in hand at a time. `next` says what to do now; `settle` and `discarded` are told what came of it, and return the
changes that are over and done with.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from config.limits import DYNAMODB_STREAM_RETENTION_H, MAPPING_BATCH_BYTES_MAX
from infra.local.mapping.event import Change, fitting
from infra.local.mapping.outcome import Failed, NotInvoked, Outcome, Returned, failed_from

Condition = Literal["RetryAttemptsExhausted", "RecordAgeExceeded"]

_RETENTION_S = DYNAMODB_STREAM_RETENTION_H * 3600


@dataclass(frozen=True, slots=True)
class Policy:
    batch_records_max: int
    window_s: float
    bisect: bool
    retries_max: int
    age_max_s: int
    report_failures: bool
    backoff_first_s: float
    backoff_longest_s: float
    batch_bytes_max: int = MAPPING_BATCH_BYTES_MAX

    @property
    def kept_s(self) -> float:
        """Endless means until the record has left the stream."""
        return _RETENTION_S if self.age_max_s < 0 else min(self.age_max_s, _RETENTION_S)


@dataclass(frozen=True, slots=True)
class Batch:
    changes: tuple[Change, ...]
    retries: int = 0
    """Retries used up; splitting uses none."""
    invocations: int = 0
    outcome: Outcome | None = None
    """Of the last invocation."""


@dataclass(frozen=True, slots=True)
class Wait:
    until_s: float | None
    """None: until there are more changes."""


@dataclass(frozen=True, slots=True)
class Invoke:
    batch: Batch


@dataclass(frozen=True, slots=True)
class Discard:
    """Give up on the batch: to the destination, if there is one, and on."""

    batch: Batch
    condition: Condition


Action = Wait | Invoke | Discard


class Lane:
    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._waiting: deque[Change] = deque()
        self._waiting_since_s = 0.0
        self._in_hand: deque[Batch] = deque()
        self._failures = 0
        """In a row; the back-off grows with it."""
        self._not_before_s = 0.0
        self._exhausted = False

    def __len__(self) -> int:
        return len(self._waiting) + sum(len(batch.changes) for batch in self._in_hand)

    def add(self, changes: Iterable[Change], now_s: float) -> None:
        if not self._waiting:
            self._waiting_since_s = now_s
        self._waiting.extend(changes)

    def next(self, now_s: float, *, closing: bool = False) -> Action:
        """What to do now; `closing` says that no change will follow, so that a window is not waited out."""
        if not self._in_hand:
            ready_s = now_s if closing else self._ready_s()
            if not self._waiting or now_s < ready_s:
                return Wait(ready_s if self._waiting else None)
            self._in_hand.append(self._take(now_s))
        head = self._in_hand[0]
        if self._exhausted:
            return Discard(head, "RetryAttemptsExhausted")
        expired = self._expired(head.changes, now_s)
        if expired:
            self._split(expired)
            return Discard(self._in_hand[0], "RecordAgeExceeded")
        if now_s < self._not_before_s:
            return Wait(self._not_before_s)
        return Invoke(head)

    def settle(self, outcome: Outcome, now_s: float) -> Sequence[Change]:
        """The head batch was invoked. Returns the changes that are done."""
        head = self._in_hand[0]
        head = replace(head, invocations=head.invocations + (not isinstance(outcome, NotInvoked)), outcome=outcome)
        self._in_hand[0] = head
        match outcome:
            case Returned(response):
                first = failed_from(response, head.changes) if self._policy.report_failures else None
                if first is None:
                    return self._done()
                return self._failed(first, now_s)
            case Failed():
                return self._failed(0, now_s)
            case NotInvoked():
                self._back_off(now_s)
                return ()

    def discarded(self) -> Sequence[Change]:
        """The head batch is at its destination. Returns its changes: they are done."""
        self._exhausted = False
        return self._done()

    def _failed(self, first: int, now_s: float) -> Sequence[Change]:
        """Everything before `first` is done; the rest is split, or tried again, or given up."""
        head = self._in_hand[0]
        done: Sequence[Change] = ()
        split = False
        if first:
            # The checkpoint moves to the lowest failure; with bisect this is the split, which uses up no retry.
            self._split(first)
            done = self._in_hand.popleft().changes
            self._failures = 0
            split = self._policy.bisect
        elif self._policy.bisect and len(head.changes) > 1:
            self._split(len(head.changes) // 2)
            split = True
        if split:
            # A poison record is cornered in log2(batch) steps; waiting longer each time would only hold up its lane.
            self._not_before_s = now_s + self._policy.backoff_first_s
        else:
            self._use_retry()
            self._back_off(now_s)
        return done

    def _use_retry(self) -> None:
        head = self._in_hand[0]
        if 0 <= self._policy.retries_max <= head.retries:
            self._exhausted = True
        else:
            self._in_hand[0] = replace(head, retries=head.retries + 1)

    def _back_off(self, now_s: float) -> None:
        wait_s = self._policy.backoff_first_s * 2 ** min(self._failures, 20)
        self._failures += 1
        self._not_before_s = now_s + min(self._policy.backoff_longest_s, wait_s)

    def _done(self) -> Sequence[Change]:
        self._failures = 0
        self._not_before_s = 0.0
        return self._in_hand.popleft().changes

    def _split(self, index: int) -> None:
        """The head batch becomes two, each with the head's counts."""
        head = self._in_hand[0]
        if index < len(head.changes):
            self._in_hand[0] = replace(head, changes=head.changes[index:])
            self._in_hand.appendleft(replace(head, changes=head.changes[:index]))

    def _take(self, now_s: float) -> Batch:
        count = self._fitting()
        batch = Batch(tuple(self._waiting.popleft() for _ in range(count)))
        self._waiting_since_s = now_s
        return batch

    def _fitting(self) -> int:
        return fitting(
            self._waiting, records_max=self._policy.batch_records_max, bytes_max=self._policy.batch_bytes_max
        )

    def _ready_s(self) -> float:
        """When the waiting changes become a batch: at once when one is full, else at the end of the window."""
        if not self._policy.window_s or len(self._waiting) >= self._policy.batch_records_max:
            return 0.0
        if self._fitting() < len(self._waiting):
            return 0.0
        return self._waiting_since_s + self._policy.window_s

    def _expired(self, changes: Sequence[Change], now_s: float) -> int:
        """How many changes, from the first, are past the age; they are in order of time."""
        oldest_s = now_s - self._policy.kept_s
        return next((index for index, change in enumerate(changes) if change.created_s >= oldest_s), len(changes))
