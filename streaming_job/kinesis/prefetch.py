"""All shards' threads of a query, and the plan of its next batch from what they hold.

They live in the process that Spark starts for the stream reader, are daemons, and end with `stop` or with the process.
"""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from streaming_job.kinesis.backlog import Segment, take_all
from streaming_job.kinesis.catalog import Catalog
from streaming_job.kinesis.clock import StoppableClock, SystemClock
from streaming_job.kinesis.errors import DataLossError
from streaming_job.kinesis.fetch import Clock, Counters, FetchLimits, KinesisApi
from streaming_job.kinesis.offsets import Offset, Position, ShardRef
from streaming_job.kinesis.options import Options
from streaming_job.kinesis.shards import Listing, StreamInfo, adopt, as_known, keeping, prune, readable, vanished
from streaming_job.kinesis.tail import LOOK_MS_MAX, Tail

_TURN_S: Final = 0.25
"""How often a resting thread asks whether it is its turn, where nobody tells it."""
_NO_LIMIT: Final = 2**62
REFRESHES_A_RETENTION: Final = 24
"""An idle shard's `seen_ms` is written this often in a retention, at the price of an empty batch."""


def fetch_limits(options: Options, info: StreamInfo) -> FetchLimits:
    return FetchLimits(
        records_max=options.fetch_records_max,
        poll_ms=options.poll_ms,
        mb_s_max=options.fetch_mb_s_max,
        retry_ms_max=options.retry_ms_max,
        retention_ms=info.retention_ms,
        created_ms=info.created_ms,
        trimmed_ms=info.trimmed_ms,
        fail_on_data_loss=options.fail_on_data_loss,
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
        self.asked_ms = 0
        """A plan waits for what arrived up to then; 0 while none waits."""
        self.wants_everything = False
        """A trigger without limits is waiting: the threads read to the tip without a pause."""
        self.counters: dict[ShardRef, Counters] = {}
        self._clock = clock or SystemClock()
        self._catalog = catalog
        self._infos: dict[str, StreamInfo] = {}
        self.tails: dict[ShardRef, Tail] = {}

    # What the threads ask.

    def wait_for_turn(self, tail: Tail) -> None:
        with self.changed:
            while not tail.has_turn(self.held_bytes(), self.options.buffer_bytes_max):
                self.changed.wait(tail.due_ms / 1000 or _TURN_S)

    def clock_until(self, stopped: threading.Event) -> Clock:
        return StoppableClock(self._clock, stopped)

    def span_limits(self) -> tuple[int, int]:
        """A shard's part of a batch."""
        return self._of_each_shard(self.options.batch_rows_max), self._of_each_shard(self.options.batch_bytes_max)

    def answer_limit(self, record_bytes: float) -> int:
        """Records of one GetRecords, so that an answer of every shard fits the buffer: it may be full before each."""
        return max(1, int(self._of_each_shard(self.options.buffer_bytes_max) / max(1.0, record_bytes)))

    def _of_each_shard(self, whole: int) -> int:
        return max(1, whole // max(1, len(self.tails)))

    def held_bytes(self) -> int:
        with self.changed:  # held already by who asks within a wait: its lock is re-entrant
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
        kept = keeping(start, self._infos, self._clock.now_ms())
        offset = self._without_vanished(prune(adopt(kept, listing), listing), listing)
        self._follow(readable(offset, listing), as_known(self._infos, offset))
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
            with self.changed:
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

    def _follow(self, wanted: Mapping[ShardRef, Position], infos: Mapping[str, StreamInfo]) -> None:
        """A thread for each readable shard, at the place where the batch begins."""
        with self.changed:
            for ref, tail in list(self.tails.items()):
                if ref not in wanted or not tail.backlog.forget_through(wanted[ref]):
                    tail.stop()
                    del self.tails[ref]
            for ref, position in wanted.items():
                if ref not in self.tails:
                    limits = fetch_limits(self.options, infos[ref.stream])
                    self.tails[ref] = Tail(self, ref, position, limits, self._counters(ref))
                    self._begin(self.tails[ref])
            self.changed.notify_all()

    def _begin(self, tail: Tail) -> None:
        tail.start()

    def _counters(self, ref: ShardRef) -> Counters:
        return self.counters.setdefault(ref, Counters())

    def _wait_for_rows(self) -> None:
        """What has arrived up to now, and where that is nothing, the first that comes."""
        if sum(tail.backlog.available[0] for tail in self.tails.values()) < self.options.batch_rows_max:
            self.asked_ms = self._clock.now_ms()
            self._wait(LOOK_MS_MAX, lambda: not any(tail.is_awaited() for tail in self.tails.values()))
        self.asked_ms = _NO_LIMIT
        if self.cutoff_ms is None:
            self._wait(self.options.idle_wait_ms, self._has_news)
        else:
            while not (self._has_news() or all(tail.finished for tail in self.tails.values())):
                self.changed.wait(1.0)
        self.asked_ms = 0

    def _has_news(self) -> bool:
        return any(tail.backlog.segments or tail.error for tail in self.tails.values())

    def _wait(self, ms: int, until: Callable[[], bool]) -> None:
        deadline = time.monotonic() + ms / 1000
        self.changed.notify_all()
        while not until() and (left_s := deadline - time.monotonic()) > 0:
            self.changed.wait(left_s)

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
