"""Reading one shard: iterators, retries, pace, and the proof that nothing was trimmed before it was read."""

import random
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar

from streaming_job.kinesis.errors import (
    DataLossError,
    IteratorExpiredError,
    RetryableError,
    ThrottledError,
    UnavailableError,
)
from streaming_job.kinesis.offsets import Kind, Position, ShardRef, newer
from streaming_job.kinesis.rows import Rows
from streaming_job.kinesis.shards import Shard, StreamInfo

CLOCK_MARGIN_MS: Final = 60_000
"""Our clock and Kinesis' may differ by this much; a position this near to the retention is checked."""
TIP_ANSWERS_EMPTY_MAX: Final = 3
"""Empty answers at the tip before a bound that was there once counts as gone."""
READ_RECORDS_MIN: Final = 1_000
PUSHED_SINCE_MS: Final = 500
"""An event that came only after so long a wait did not lie in the socket before, nor in one on its way."""
_BACKOFF_MS_BASE: Final = 100
_BACKOFF_MS_MAX: Final = 5_000

T = TypeVar("T")


@dataclass(frozen=True)
class Answer:
    """Of GetRecords: its rows, taken apart where they were aggregated, and the Kinesis records they came in."""

    rows: Rows
    sequences: tuple[str, ...] = ()
    arrival_ms: int = 0
    """Of the last record."""
    behind_ms: int = 0
    next_iterator: str | None = None
    """None: the shard is read to its end."""


class KinesisApi(Protocol):
    """The calls a reader needs. Each is made once: retries are the reader's."""

    def describe(self, stream: str) -> StreamInfo: ...
    def list_shards(self, stream: str) -> tuple[Shard, ...]: ...
    def iterator(self, ref: ShardRef, position: Position, *, inclusive: bool = False) -> str: ...
    def get_records(self, iterator: str, limit: int) -> Answer: ...
    def subscribe(self, consumer_arn: str, ref: ShardRef, position: Position) -> Generator[Answer]: ...


class Clock(Protocol):
    def now_ms(self) -> int: ...
    def sleep_ms(self, ms: int) -> None: ...


@dataclass
class Counters:
    """Since the reader began."""

    records: int = 0
    bytes: int = 0
    throttles: int = 0
    retries: int = 0
    expired_iterators: int = 0
    losses: int = 0
    behind_ms: int = 0

    def planned(self, records: int, size: int, behind_ms: int) -> None:
        """What executors will read is counted as it is planned, by estimate: they have no way to report."""
        self.records += records
        self.bytes += size
        self.behind_ms = behind_ms


@dataclass(frozen=True)
class FetchLimits:
    records_max: int
    poll_ms: int
    mb_s_max: float
    retry_ms_max: int
    retention_ms: int
    fail_on_data_loss: bool
    created_ms: int = 0
    """The stream's: what is younger than its retention has trimmed nothing yet."""
    trimmed_ms: int = 0
    """What arrived before may have been trimmed under an earlier, shorter retention."""


@dataclass
class Pace:
    """At most one call in `poll_ms`, and after a large answer as long as its bytes take at the rate."""

    clock: Clock
    poll_ms: int
    mb_s_max: float
    _next_ms: int = 0
    _pause_ms: int = 0

    @property
    def due_ms(self) -> int:
        """Until the next call; more than the pause itself tells that the clock was set back."""
        left_ms = self._next_ms - self.clock.now_ms()
        return left_ms if 0 < left_ms <= self._pause_ms else 0

    def wait(self) -> None:
        if due_ms := self.due_ms:
            self.clock.sleep_ms(due_ms)
        self._pause_ms = self.poll_ms
        self._next_ms = self.clock.now_ms() + self.poll_ms

    def spent(self, size: int) -> None:
        if self.mb_s_max > 0:
            self._pause_ms = max(self.poll_ms, int(size / (self.mb_s_max * 1000)))
            self._next_ms = max(self._next_ms, self.clock.now_ms() + self._pause_ms)


def with_retries(call: Callable[[], T], clock: Clock, budget_ms: int, counters: Counters, what: str) -> T:
    """Call until it works, with jitter between tries, for at most the budget since it first failed."""
    failing_since_ms: int | None = None
    tries = 0
    while True:
        try:
            return call()
        except RetryableError as error:
            if isinstance(error, ThrottledError):
                counters.throttles += 1
            elif isinstance(error, IteratorExpiredError):
                counters.expired_iterators += 1
            else:
                counters.retries += 1
            now_ms = clock.now_ms()
            failing_since_ms = now_ms if failing_since_ms is None else failing_since_ms
            if now_ms - failing_since_ms >= budget_ms:
                raise UnavailableError(
                    f"{what}: no answer within {budget_ms} ms, the last: {error}",
                    hint="check region, endpointUrl and the network; a restart continues at the same position; "
                    "maxRetryDuration says how long to try",
                ) from error
        # Not cryptography: the jitter keeps many shards from coming back in the same moment.
        clock.sleep_ms(int(random.uniform(0.5, 1.0) * min(_BACKOFF_MS_MAX, _BACKOFF_MS_BASE * 2**tries)))  # noqa: S311
        tries += 1


@dataclass
class ShardReader:
    """Reads a shard forward from a position, which it moves as it goes."""

    api: KinesisApi
    ref: ShardRef
    position: Position
    limits: FetchLimits
    clock: Clock
    counters: Counters = field(default_factory=Counters)
    asked_ms: int = 0
    """When the last answer was asked for; of what is pushed, a time before which it was not sent."""
    _iterator: str | None = None
    _trimmed_ms: int = field(init=False)
    """As the limits', until an answer has joined the start: what follows it is kept for as long as all is now."""
    _pace: Pace = field(init=False)

    def __post_init__(self) -> None:
        self._trimmed_ms = self.limits.trimmed_ms
        self._pace = Pace(self.clock, self.limits.poll_ms, self.limits.mb_s_max)

    def read(self, records_max: int | None = None) -> Answer:
        """The next answer, often empty; afterwards `position` stands behind it."""
        limit = min(records_max or self.limits.records_max, self.limits.records_max)
        asked_ms, answer = with_retries(
            lambda: self._read_once(limit), self.clock, self.limits.retry_ms_max, self.counters, f"reading {self.ref}"
        )
        self.asked_ms = asked_ms
        self._check_nothing_trimmed(answer)
        self._trimmed_ms = 0
        if self.position.kind is Kind.AT_MS and answer.sequences:
            answer = Answer(
                answer.rows.from_ms(self.position.at_ms),
                answer.sequences,
                answer.arrival_ms,
                answer.behind_ms,
                answer.next_iterator,
            )
        self._iterator = answer.next_iterator
        self._move(answer, asked_ms)
        self._pace.spent(answer.rows.size)
        self.counters.records += len(answer.rows)
        self.counters.bytes += answer.rows.size
        self.counters.behind_ms = answer.behind_ms
        return answer

    @property
    def due_ms(self) -> int:
        """Until the next call may be made."""
        return self._pace.due_ms

    def jump(self, position: Position) -> None:
        """Continue elsewhere."""
        self.position = position
        self._iterator = None

    def close(self) -> None:
        """Nothing more is read; asked by the thread that read."""

    def _read_once(self, limit: int) -> tuple[int, Answer]:
        try:
            if self._iterator is None:
                self._iterator = self.api.iterator(self.ref, self.position)
            self._pace.wait()
            asked_ms = self.clock.now_ms()
            return asked_ms, self.api.get_records(self._iterator, limit)
        except IteratorExpiredError:
            self._iterator = None
            raise

    def _move(self, answer: Answer, asked_ms: int) -> None:
        # A shard's end is no tip: its children may have waited for long, and take over what is known here.
        at_tip = answer.behind_ms == 0 and answer.next_iterator is not None
        seen_ms = max(answer.arrival_ms, asked_ms if at_tip else 0)
        if answer.sequences:
            self.position = Position.after(answer.sequences[-1], seen_ms=max(seen_ms, self.position.seen_ms))
        elif at_tip:
            self.position = self.position.seen(asked_ms)
        if answer.next_iterator is None:
            self.position = Position.closed(self.position.sequence, seen_ms=self.position.seen_ms)

    def _check_nothing_trimmed(self, answer: Answer) -> None:
        """Asked after the answer: while the record before it is still there, nothing between them can be gone."""
        before = self.position
        at_risk_ms = max(self.clock.now_ms() - self.limits.retention_ms, self._trimmed_ms) + CLOCK_MARGIN_MS
        if before.seen_ms == 0 or max(before.seen_ms, self.limits.created_ms) >= at_risk_ms:
            return
        if before.kind is Kind.AFTER and self._is_still_there(before):
            return
        self.counters.losses += 1
        if self.limits.fail_on_data_loss:
            upto = f"the first record left is {answer.sequences[0]}" if answer.sequences else "no record is left"
            raise DataLossError.of(
                str(self.ref),
                f"from {before} on, records that arrived since {before.seen_ms} ms (since 1970) may have been trimmed "
                f"before they were read; {upto}",
            )

    def _is_still_there(self, position: Position) -> bool:
        def first() -> bool:
            iterator = self.api.iterator(self.ref, position, inclusive=True)
            while True:
                self._pace.wait()
                answer = self.api.get_records(iterator, 1)
                if answer.sequences:
                    return answer.sequences[0] == position.sequence
                if answer.next_iterator is None or answer.behind_ms == 0:
                    return False
                iterator = answer.next_iterator

        return with_retries(first, self.clock, self.limits.retry_ms_max, self.counters, f"reading {self.ref}")


@dataclass
class SubscribedReader(ShardReader):
    """Enhanced fan-out: Kinesis pushes what arrives, over a subscription that it ends every five minutes."""

    consumer_arn: str = ""
    _events: Generator[Answer] | None = None
    _sent_ms: int = 0
    """No event that is still to come was sent before."""

    def jump(self, position: Position) -> None:
        super().jump(position)
        self.close()

    def close(self) -> None:
        """Kinesis gives a shard to a consumer once: a subscription left open keeps the next one out for seconds."""
        if self._events is not None:
            self._events.close()
            self._events = None

    def _read_once(self, _limit: int) -> tuple[int, Answer]:
        """How much comes is Kinesis' choice, and it may have lain in the socket while the thread waited for room."""
        while True:
            if self._events is None:
                self._pace.wait()
                self._sent_ms = self.clock.now_ms()
                self._events = self.api.subscribe(self.consumer_arn, self.ref, self.position)
            answer = self._taken(self._events)
            if answer is not None:
                return self._sent_ms, answer
            self._events = None

    def _taken(self, events: Generator[Answer]) -> Answer | None:
        """The next event, and when it was sent at the earliest; None where the subscription has ended."""
        waits_from_ms = self.clock.now_ms()
        try:
            answer = next(events, None)
        except RetryableError:
            self.close()
            raise
        if answer is not None:
            had_to_wait = self.clock.now_ms() - waits_from_ms >= PUSHED_SINCE_MS
            self._sent_ms = max(self._sent_ms, answer.arrival_ms, waits_from_ms if had_to_wait else 0)
        return answer


def read_through(reader: ShardReader, end: Position, expected: int = 0) -> Iterator[Rows]:
    """Everything from the reader's position up to and with `end`, which was read or found once before.

    `expected` records are asked for, so that little is read beyond the end; being wrong costs calls, not rows.
    """
    empty, left, first = 0, expected, end.first
    while True:
        answer = reader.read(max(left + left // 8, READ_RECORDS_MIN) if expected else None)
        if first and answer.rows:
            if answer.rows.sequences[0] != first:
                _missing_bound(reader, first)
            first = ""
        left = max(0, left - len(answer.sequences))
        if end.is_closed:
            yield answer.rows
            if reader.position.is_closed:
                if reader.position.sequence != end.sequence:
                    _missing_bound(reader, end.sequence)
                return
            continue
        last = answer.sequences[-1] if answer.sequences else ""
        if last and not newer(end.sequence, last):
            yield answer.rows.through(end.sequence)
            if end.sequence not in answer.sequences:
                _missing_bound(reader, end.sequence)
            return
        yield answer.rows
        empty = empty + 1 if answer.behind_ms == 0 and not last else 0
        if reader.position.is_closed or empty >= TIP_ANSWERS_EMPTY_MAX:
            _missing_bound(reader, end.sequence)
            return


def _missing_bound(reader: ShardReader, sequence: str) -> None:
    reader.counters.losses += 1
    if reader.limits.fail_on_data_loss:
        raise DataLossError.of(
            str(reader.ref), f"record {sequence}, where a planned batch begins or ends, is no longer in the stream"
        )
