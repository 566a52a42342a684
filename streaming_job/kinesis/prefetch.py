"""Threads on the driver, one a shard: near the tip they read ahead, behind it they find bounds for the executors.

They live in the process that Spark starts for the stream reader, are daemons, and end with `stop` or with the process.
"""

import threading
import time
from collections.abc import Mapping
from typing import Final

from streaming_job.kinesis.backlog import Backlog, Segment, take_all
from streaming_job.kinesis.catalog import Catalog
from streaming_job.kinesis.catchup import Density, step_ms
from streaming_job.kinesis.errors import DataLossError
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
from streaming_job.kinesis.offsets import Kind, Offset, Position, ShardRef, newer
from streaming_job.kinesis.options import Options
from streaming_job.kinesis.shards import Listing, StreamInfo, adopt, prune, readable, vanished

SPANS_AHEAD: Final = 4
PROBE_RECORDS: Final = 200
PROBE_ANSWERS_MAX: Final = 20
SCOUT_MS_MIN: Final = 1_000
"""Between two probes: the executors read the same shard, and five calls a second are for both."""
_NO_LIMIT: Final = 2**62
REFRESHES_A_RETENTION: Final = 24
"""An idle shard's `seen_ms` is written this often in a retention, at the price of an empty batch."""


class StoppedError(Exception):
    """The query stopped while a thread slept."""


class SystemClock:
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def sleep_ms(self, ms: int) -> None:
        time.sleep(ms / 1000)


class StoppableClock:
    """Sleeps end when the query does."""

    def __init__(self, clock: Clock, stopped: threading.Event) -> None:
        self.now_ms = clock.now_ms
        self._stopped = stopped

    def sleep_ms(self, ms: int) -> None:
        if self._stopped.wait(ms / 1000):
            raise StoppedError


def fetch_limits(options: Options, info: StreamInfo) -> FetchLimits:
    return FetchLimits(
        records_max=options.fetch_records_max,
        poll_ms=options.poll_ms,
        mb_s_max=options.fetch_mb_s_max,
        retry_ms_max=options.retry_ms_max,
        retention_ms=info.retention_ms,
        created_ms=info.created_ms,
        fail_on_data_loss=options.fail_on_data_loss,
    )


class Tail:
    """One shard's thread, its backlog and its reader."""

    def __init__(
        self, owner: "Prefetcher", ref: ShardRef, start: Position, limits: FetchLimits, counters: Counters
    ) -> None:
        self.backlog = Backlog(start)
        self.error: Exception | None = None
        self.finished = False
        """Everything that this query may read has been offered: the shard's end, or available-now's."""
        self._owner = owner
        self._stopped = threading.Event()
        self._clock = owner.clock_until(self._stopped)
        consumer_arn = owner.consumers.get(ref.stream)
        self._reader = (
            SubscribedReader(owner.api, ref, start, limits, self._clock, counters, consumer_arn=consumer_arn)
            if consumer_arn
            else ShardReader(owner.api, ref, start, limits, self._clock, counters)
        )
        self._density: Density | None = None
        self._arrival_ms = 0
        self._step_ms: int | None = None
        self._scouting = False
        self._thread = threading.Thread(target=self._run, name=f"kinesis-{ref}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()

    def _run(self) -> None:
        while not (self._stopped.is_set() or self.finished or self.error):
            self._owner.wait_for_room(self)
            self.turn()

    def turn(self) -> None:
        """One step ahead in the shard: what it brings, or how it failed, is for the next plan."""
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

    def has_room(self, held_bytes: int, held_bytes_max: int) -> bool:
        if self._stopped.is_set() or self._owner.wants_everything:
            return True
        if self._scouting:
            return sum(1 for segment in self.backlog.segments if segment.rows is None) < SPANS_AHEAD
        return not self.backlog.segments or held_bytes < held_bytes_max

    def _read(self) -> None:
        asked_ms = self._clock.now_ms()
        answer = self._reader.read()
        end = self._reader.position
        rows, cutoff_ms, finished = answer.rows, self._owner.cutoff_ms, False
        if cutoff_ms is not None and answer.arrival_ms > cutoff_ms:
            rows = rows.until_ms(cutoff_ms)
            end = Position.after(rows.sequences[-1], seen_ms=rows.arrivals_ms[-1]) if rows else self.backlog.end
            finished = True
        elif end.is_closed or (cutoff_ms is not None and answer.behind_ms == 0 and asked_ms > cutoff_ms):
            finished = True
        if rows:
            self._density, self._arrival_ms = Density.of(rows), answer.arrival_ms
        with self._owner.changed:
            if not end.same_place(self.backlog.end):
                self.backlog.add(rows, end)
            self.backlog.tip_ms = asked_ms if answer.behind_ms == 0 else 0
            self.finished = finished
            self._owner.changed.notify_all()
        self._scouting = (
            not finished
            and answer.behind_ms > self._owner.options.catch_up_behind_ms
            and self._density is not None
            and end.kind is Kind.AFTER
        )

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
            self._owner.changed.notify_all()
        self._density, self._arrival_ms = sample or self._density, arrival_ms
        self._reader.jump(end)
        self._clock.sleep_ms(SCOUT_MS_MIN)

    def _tip_ms(self) -> int:
        """Up to here the executors may read; from here on the thread does."""
        tip_ms = self._clock.now_ms() - self._owner.options.catch_up_behind_ms // 2
        return tip_ms if self._owner.cutoff_ms is None else min(tip_ms, self._owner.cutoff_ms)

    def _probe(self, at_ms: int) -> Answer | None:
        def first() -> Answer | None:
            iterator: str | None = self._owner.api.iterator(self._reader.ref, Position.at(at_ms))
            for _ in range(PROBE_ANSWERS_MAX):
                if iterator is None:
                    return None
                answer = self._owner.api.get_records(iterator, PROBE_RECORDS)
                if answer.sequences:
                    return answer
                iterator = answer.next_iterator
                self._clock.sleep_ms(self._reader.limits.poll_ms)
            return None

        return with_retries(
            first, self._clock, self._reader.limits.retry_ms_max, self._reader.counters, f"reading {self._reader.ref}"
        )


class Prefetcher:
    """All shards' threads, and the plan of the next batch from what they hold."""

    def __init__(
        self,
        api: KinesisApi,
        options: Options,
        catalog: Catalog,
        consumers: Mapping[str, str] | None = None,
        *,
        clock: Clock | None = None,
    ) -> None:
        self.api = api
        self.consumers = dict(consumers or {})
        """Enhanced fan-out: the consumer's ARN by stream."""
        self.options = options
        self.changed = threading.Condition()
        self.cutoff_ms: int | None = None
        """Available-now: nothing that arrived later is read."""
        self.wants_everything = False
        """A trigger without limits is waiting: the threads read to the tip without a pause."""
        self.counters: dict[ShardRef, Counters] = {}
        self._clock = clock or SystemClock()
        self._catalog = catalog
        self._infos: dict[str, StreamInfo] = {}
        self.tails: dict[ShardRef, Tail] = {}

    # What the threads ask.

    def wait_for_room(self, tail: Tail) -> None:
        with self.changed:
            while not tail.has_room(self.held_bytes(), self.options.buffer_bytes_max):
                self.changed.wait(1.0)

    def clock_until(self, stopped: threading.Event) -> Clock:
        return StoppableClock(self._clock, stopped)

    def span_limits(self) -> tuple[int, int]:
        """A shard's part of a batch."""
        parts = max(1, len(self.tails))
        return max(1, self.options.batch_rows_max // parts), max(1, self.options.batch_bytes_max // parts)

    def held_bytes(self) -> int:
        return sum(tail.backlog.held_bytes for tail in self.tails.values())

    # What the query asks.

    def read_until_ms(self, ref: ShardRef) -> int:
        """Nothing older of the shard is unread; 0 where nobody knows, or nothing is left to read."""
        with self.changed:
            tail = self.tails.get(ref)
            return tail.backlog.read_until_ms if tail else 0

    def retention_ms(self, ref: ShardRef) -> int:
        return self._infos[ref.stream].retention_ms

    def read_until_now(self) -> None:
        self.cutoff_ms = self._clock.now_ms()

    def plan(self, start: Offset, limits: tuple[int, int] | None) -> Offset:
        """The end of the next batch, within rows and bytes or (None) with all there is; `start` if nothing."""
        self._look_at_streams()
        listing = self._catalog.listing()
        offset = self._without_vanished(prune(adopt(start, listing), listing), listing)
        self._follow(readable(offset, listing))
        with self.changed:
            if limits is None:
                self._wait_for_everything()
            else:
                self._wait_for_rows()
            for tail in self.tails.values():
                if tail.error is not None:
                    raise tail.error
            backlogs = {ref: tail.backlog for ref, tail in self.tails.items()}
            ends = take_all(backlogs, *(limits or (_NO_LIMIT, _NO_LIMIT)))
            self.changed.notify_all()
        planned = offset.moved(ends)
        if any(position.is_closed for position in ends.values()):
            self._catalog.list_again()
        return planned if self._is_worth_a_batch(start, planned) else start

    def segments(self, ref: ShardRef, start: Position, end: Position) -> list[Segment] | None:
        with self.changed:
            tail = self.tails.get(ref)
            return tail.backlog.between(start, end) if tail else None

    def stop(self) -> None:
        for tail in self.tails.values():
            tail.stop()
        with self.changed:
            self.changed.notify_all()
        # Joined by nobody: a thread may be inside a call until its timeout; they are daemons and touch nothing more.

    # The parts of a plan.

    def _look_at_streams(self) -> None:
        """A retention that changed changes what may be lost: the threads begin again with it."""
        infos = self._catalog.infos()
        if infos != self._infos:
            for tail in self.tails.values():
                tail.stop()
            self.tails.clear()
            self._infos = dict(infos)

    def _without_vanished(self, offset: Offset, listing: Listing) -> Offset:
        gone = vanished(offset, listing)
        if gone and self.options.fail_on_data_loss:
            position = offset.positions()[gone[0]]
            raise DataLossError.of(
                str(gone[0]), f"the shard is no longer in the stream, the query has read it to {position}"
            )
        for ref in gone:
            self._counters(ref).losses += 1
        positions = offset.positions()
        return offset.moved({ref: Position.closed(positions[ref].sequence) for ref in gone}) if gone else offset

    def _follow(self, wanted: Mapping[ShardRef, Position]) -> None:
        """A thread for each readable shard, at the place where the batch begins."""
        with self.changed:
            for ref, tail in list(self.tails.items()):
                if ref not in wanted or not tail.backlog.forget_through(wanted[ref]):
                    tail.stop()
                    del self.tails[ref]
            for ref, position in wanted.items():
                if ref not in self.tails:
                    limits = fetch_limits(self.options, self._infos[ref.stream])
                    self.tails[ref] = Tail(self, ref, position, limits, self._counters(ref))
                    self._begin(self.tails[ref])
            self.changed.notify_all()

    def _begin(self, tail: Tail) -> None:
        tail.start()

    def _counters(self, ref: ShardRef) -> Counters:
        return self.counters.setdefault(ref, Counters())

    def _wait_for_rows(self) -> None:
        deadline = time.monotonic() + self.options.idle_wait_ms / 1000
        while not any(tail.backlog.segments or tail.error for tail in self.tails.values()):
            if self.cutoff_ms is not None and all(tail.finished for tail in self.tails.values()):
                return
            left_s = deadline - time.monotonic()
            if self.cutoff_ms is None and left_s <= 0:
                return
            self.changed.wait(1.0 if self.cutoff_ms is not None else left_s)

    def _wait_for_everything(self) -> None:
        """Until each shard was seen at its tip once; what does not fit the buffer is left to the executors."""
        asked_ms = self._clock.now_ms()
        self.wants_everything = True
        self.changed.notify_all()
        while not all(t.error or t.finished or t.backlog.tip_ms >= asked_ms for t in self.tails.values()):
            self.changed.wait(1.0)
            if self.held_bytes() > self.options.buffer_bytes_max:
                for tail in self.tails.values():
                    tail.backlog.shed()
        self.wants_everything = False

    def _is_worth_a_batch(self, start: Offset, planned: Offset) -> bool:
        """Rows, or a shard's life, or a `seen_ms` that is getting too old to tell idle from trimmed."""
        before, after = start.positions(), planned.positions()
        if before.keys() != after.keys() or any(not after[ref].same_place(before[ref]) for ref in before):
            return True
        return self.cutoff_ms is None and any(
            after[ref].seen_ms - before[ref].seen_ms > self._infos[ref.stream].retention_ms // REFRESHES_A_RETENTION
            for ref in before
        )
