"""One shard's thread on the driver: near the tip it reads ahead, behind it finds bounds for the executors."""

import threading
from typing import Final, Protocol

from streaming_job.kinesis.backlog import Backlog
from streaming_job.kinesis.catchup import Density, came_at_once, step_ms
from streaming_job.kinesis.clock import StoppedError
from streaming_job.kinesis.fetch import (
    Answer,
    Clock,
    Counters,
    FetchLimits,
    KinesisApi,
    ShardReader,
    SubscribedReader,
    with_retries,
)
from streaming_job.kinesis.offsets import Kind, Position, ShardRef, newer
from streaming_job.kinesis.options import Options

SPANS_AHEAD: Final = 4
FIRST_RECORDS: Final = 1_000
"""Of the first answer: it tells how densely the shard is filled, and a small one is there soon."""
FIRST_RECORD_BYTES: Final = 10_240
"""Taken for a record's size until one was seen."""
PROBE_RECORDS: Final = 200
PROBE_RECORDS_MORE: Final = 2_000
"""Where the first came all at once: of several PutRecords, whose records each come in one millisecond."""
PROBE_ANSWERS_MAX: Final = 20
BESIDE_EXECUTORS_MS: Final = 1_000
"""Between two looks while executors read the same shard: five calls a second are for both."""
LOOK_MS_MAX: Final = 100
"""How long a plan waits for what has arrived since the last look; a later answer is for the next batch."""
AT_TIP_MS: Final = 1_000
"""Between two looks at the tip while no plan waits: the calls are left to the shard's other consumers."""


class Owner(Protocol):
    """What a thread needs of the query it reads for."""

    api: KinesisApi
    options: Options
    consumers: dict[str, str]
    changed: threading.Condition
    """Held where a backlog changes."""
    cutoff_ms: int | None
    asked_ms: int
    wants_everything: bool

    def wait_for_turn(self, tail: "Tail") -> None: ...
    def clock_until(self, stopped: threading.Event) -> Clock: ...
    def span_limits(self) -> tuple[int, int]: ...
    def answer_limit(self, record_bytes: float) -> int: ...


class Tail:
    """One shard's thread, its backlog and its reader."""

    def __init__(self, owner: Owner, ref: ShardRef, start: Position, limits: FetchLimits, counters: Counters) -> None:
        self.backlog = Backlog(start)
        self.error: Exception | None = None
        self.finished = False
        """Everything that this query may read has been offered: the shard's end, or available-now's."""
        self._owner = owner
        self._stopped = threading.Event()
        self._clock = owner.clock_until(self._stopped)
        consumer_arn = owner.consumers.get(ref.stream)
        self._is_pushed = consumer_arn is not None
        self._reader = (
            SubscribedReader(owner.api, ref, start, limits, self._clock, counters, consumer_arn=consumer_arn)
            if consumer_arn
            else ShardReader(owner.api, ref, start, limits, self._clock, counters)
        )
        self._density: Density | None = None
        self._arrival_ms = 0
        self._step_ms: int | None = None
        self._scouting = False
        self._looked_ms = 0
        self._is_in_turn = False
        self._thread = threading.Thread(target=self._run, name=f"kinesis-{ref}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()

    def _run(self) -> None:
        try:
            while not (self._stopped.is_set() or self.finished or self.error):
                self._owner.wait_for_turn(self)
                self.turn()
        finally:
            self._reader.close()

    def turn(self) -> None:
        """One step ahead in the shard: what it brings, or how it failed, is for the next plan."""
        self._is_in_turn = True
        try:
            if self._scouting:
                self._scout()
            else:
                self._read()
        except StoppedError:
            return
        except Exception as error:  # noqa: BLE001 - a thread's error is raised where the query plans its next batch
            with self._owner.changed:
                self.error = error
                self._owner.changed.notify_all()
        finally:
            self._is_in_turn = False

    # When to take a turn; asked under the owner's lock.

    def has_turn(self, held_bytes: int, held_bytes_max: int) -> bool:
        return self._stopped.is_set() or (self.has_room(held_bytes, held_bytes_max) and self._is_time())

    def has_room(self, held_bytes: int, held_bytes_max: int) -> bool:
        if self._owner.wants_everything:
            return True
        if self._scouting:
            return self.backlog.spans < SPANS_AHEAD
        return not self.backlog.segments or held_bytes < held_bytes_max

    def _is_time(self) -> bool:
        """A shard is read on without a pause until its tip is reached; there, when a plan waits for what has come."""
        if self.due_ms > 0:
            return False
        since_ms = abs(self._clock.now_ms() - self._looked_ms)  # a clock set back must not make it wait
        if self.backlog.spans:
            return since_ms >= BESIDE_EXECUTORS_MS
        return not self._is_at_tip() or self._is_asked() or since_ms >= AT_TIP_MS

    @property
    def due_ms(self) -> int:
        """Until the shard may be read again."""
        return self._reader.due_ms

    def is_awaited(self) -> bool:
        """A plan should wait for this thread's look: it is under way or will be soon, and nothing else is to do."""
        is_soon = self._is_in_turn or self.due_ms < LOOK_MS_MAX
        return is_soon and self._is_at_tip() and not self.backlog.spans and self._is_asked()

    def _is_asked(self) -> bool:
        return self._looked_ms < self._owner.asked_ms

    def _is_at_tip(self) -> bool:
        can_rest = not (self._is_pushed or self._scouting or self.finished or self.error)
        return can_rest and self._owner.cutoff_ms is None and self.backlog.tip_ms > 0

    # A turn.

    def _read(self) -> None:
        answer = self._reader.read(self._answer_limit())
        asked_ms, end = self._reader.asked_ms, self._reader.position
        rows, cutoff_ms, finished = answer.rows, self._owner.cutoff_ms, False
        tip_ms = asked_ms if answer.behind_ms == 0 else 0
        if cutoff_ms is not None and answer.arrival_ms > cutoff_ms:
            rows = rows.until_ms(cutoff_ms)
            end = Position.after(rows.sequences[-1], seen_ms=rows.arrivals_ms[-1]) if rows else self.backlog.end
            finished, tip_ms = True, min(asked_ms, cutoff_ms)
        elif end.is_closed or (cutoff_ms is not None and answer.behind_ms == 0 and asked_ms > cutoff_ms):
            finished = True
        if rows:
            self._density, self._arrival_ms = Density.of(rows), answer.arrival_ms
        with self._owner.changed:
            if not end.same_place(self.backlog.end):
                self.backlog.add(rows, end)
            self.backlog.tip_ms = tip_ms
            self.finished = finished
            self._looked_ms = asked_ms
            self._owner.changed.notify_all()
        self._scouting = (
            not finished
            and answer.behind_ms > self._owner.options.catch_up_behind_ms
            and self._density is not None
            and end.kind is Kind.AFTER
        )

    def _answer_limit(self) -> int:
        if self._density is not None:
            return self._owner.answer_limit(self._density.record_bytes)
        return min(FIRST_RECORDS, self._owner.answer_limit(FIRST_RECORD_BYTES))

    def _scout(self) -> None:
        """Find the next bound: the first record past a step in time. The executors read up to it."""
        if self._density is None:
            raise AssertionError("scouting begins after rows were seen")
        rows_max, size_max = self._owner.span_limits()
        step = step_ms(self._density, rows_max=rows_max, size_max=size_max, last_step_ms=self._step_ms)
        bound_ms = self._arrival_ms + step
        answer = self._probe(bound_ms) if bound_ms < self._tip_ms() else None
        if answer is None or answer.behind_ms == 0 or not newer(answer.sequences[0], self.backlog.end.sequence):
            self._scouting = False
            return
        self._step_ms = step
        arrival_ms = answer.rows.arrivals_ms[0] if answer.rows else answer.arrival_ms
        end = Position.after(answer.sequences[0], seen_ms=arrival_ms)
        sample = Density.of(answer.rows)
        between, span_ms = self._density.over(sample), max(1, arrival_ms - self._arrival_ms)
        count, size = int(between.rows * span_ms), int(between.size * span_ms)
        self._reader.counters.planned(count, size, self._clock.now_ms() - arrival_ms)
        with self._owner.changed:
            self.backlog.add_span(count, size, end)
            self._looked_ms = self._clock.now_ms()
            self._owner.changed.notify_all()
        self._density, self._arrival_ms = sample or self._density, arrival_ms
        self._reader.jump(end)

    def _tip_ms(self) -> int:
        """Up to here the executors may read; from here on the thread does."""
        tip_ms = self._clock.now_ms() - self._owner.options.catch_up_behind_ms // 2
        return tip_ms if self._owner.cutoff_ms is None else min(tip_ms, self._owner.cutoff_ms)

    def _probe(self, at_ms: int) -> Answer | None:
        """The first records since a time; None where there are none."""

        def first() -> Answer | None:
            iterator: str | None = self._owner.api.iterator(self._reader.ref, Position.at(at_ms))
            for _ in range(PROBE_ANSWERS_MAX):
                if iterator is None:
                    return None
                answer = self._owner.api.get_records(iterator, PROBE_RECORDS)
                if answer.sequences and came_at_once(answer.rows):
                    self._clock.sleep_ms(self._reader.limits.poll_ms)
                    larger = self._owner.api.get_records(iterator, PROBE_RECORDS_MORE)
                    return larger if larger.sequences else answer
                if answer.sequences:
                    return answer
                if answer.behind_ms == 0:
                    return None
                iterator = answer.next_iterator
                self._clock.sleep_ms(self._reader.limits.poll_ms)
            return None

        return with_retries(
            first, self._clock, self._reader.limits.retry_ms_max, self._reader.counters, f"reading {self._reader.ref}"
        )
