"""The delivery itself: reads every shard, fills the buffer, writes it, keeps the position."""

import threading
import time
from datetime import UTC, datetime

from infra.local import worker
from infra.local.delivery.buffer import Buffer, Load
from infra.local.delivery.framing import frame
from infra.local.delivery.metrics import Metrics
from infra.local.delivery.objects import Bucket, name_of
from infra.local.delivery.positions import Positions
from infra.local.delivery.prefix import checked
from infra.local.delivery.settings import DeliverySettings
from infra.local.delivery.source import KinesisStream, Page
from infra.local.lineage import Shard, readable

_POLL_EVERY_S = 1.0
_DISCOVER_EVERY_S = 10.0


class Delivery:
    """One thread: reads each shard in turn, writes when the buffer is due. What waits for S3 is not read ahead of."""

    def __init__(
        self,
        settings: DeliverySettings,
        *,
        source: KinesisStream,
        bucket: Bucket,
        positions: Positions,
        metrics: Metrics,
        log: worker.Log,
        stop: threading.Event,
    ) -> None:
        self._settings = settings
        self._prefix, self._error_prefix = checked(settings.prefix, settings.error_prefix)
        self._source = source
        self._bucket = bucket
        self._positions = positions
        self._metrics = metrics
        self._log = log
        self._stop = stop
        self._buffer = Buffer(bytes_max=settings.buffer_bytes, wait_s=settings.buffer_s)
        self._iterators: dict[str, str | None] = {}
        """Of each shard being read; None: get one, just after what was read."""
        self._read_after: dict[str, str] = {}
        self._ended: set[str] = set()
        """Read to the end, perhaps not yet delivered."""
        self._discover_at_s = 0.0

    def run(self) -> None:
        self._redo_plan()
        if self._stop.is_set():
            return  # the plan stands: nothing may be delivered before it
        while not self._stop.is_set():
            started_s = time.monotonic()
            if started_s >= self._discover_at_s:
                self._discover()
            is_behind = self._poll()
            if self._buffer.due_in_s(time.monotonic()) == 0:
                self._deliver()
            self._finish_shards()
            self._observe()
            if not is_behind:
                self._stop.wait(self._pause_s(started_s))
        self._poll()  # what came since the last round need not wait for the next start
        self._deliver()
        self._finish_shards()

    # Reading

    def _discover(self) -> None:
        self._discover_at_s = time.monotonic() + _DISCOVER_EVERY_S
        try:
            shards = self._source.shards()
        except worker.ServiceError as error:
            self._read_failed(error)
            return
        for shard in self._readable(shards):
            if shard.id not in self._iterators:
                self._log.info("shard_begun", shard=shard.id, after=self._positions.after(shard.id))
                self._iterators[shard.id] = None

    def _readable(self, shards: list[Shard]) -> list[Shard]:
        return readable(shards, self._positions.finished | self._ended)

    def _poll(self) -> bool:
        """One page of each shard. Whether any of them has more at hand."""
        is_behind = False
        for shard in tuple(self._iterators):
            try:
                page = self._page(shard)
            except worker.ServiceError as error:
                # Expired, or the service was away: the next round asks for a new iterator, just after what was read.
                self._iterators[shard] = None
                self._read_failed(error)
                continue
            self._feed(shard, page)
            if page.next_iterator is None:
                del self._iterators[shard]
                self._ended.add(shard)
                self._discover_at_s = 0.0
            else:
                self._iterators[shard] = page.next_iterator
                is_behind |= bool(page.behind_ms and page.records)
        return is_behind

    def _page(self, shard: str) -> Page:
        iterator = self._iterators[shard]
        if iterator is None:
            after = self._read_after.get(shard) or self._positions.after(shard)
            iterator = self._source.iterator(shard, after=after, start=self._start_of(shard))
        return self._source.page(iterator)

    def _start_of(self, shard: str) -> str:
        return self._positions.start(shard) or "TRIM_HORIZON"

    def _feed(self, shard: str, page: Page) -> None:
        self._metrics.behind_ms.labels(shard).set(page.behind_ms)
        for record in page.records:
            self._buffer.add(shard, frame(record, now=datetime.now(UTC)), time.monotonic())
            self._read_after[shard] = record.sequence
            if self._buffer.is_full:
                self._deliver()

    def _read_failed(self, error: Exception) -> None:
        self._metrics.read_failures.inc()
        self._log.warning("read_failed", error=worker.one_line(error))

    def _pause_s(self, started_s: float) -> float:
        now_s = time.monotonic()
        pause_s = started_s + _POLL_EVERY_S - now_s
        due_s = self._buffer.due_in_s(now_s)
        return max(0.0, pause_s if due_s is None else min(pause_s, due_s))

    # Writing

    def _deliver(self) -> None:
        """Plan, put, commit. A kill after the plan has the same records put under the same names by the next start."""
        if not len(self._buffer):
            return
        load = self._buffer.take()
        plan = self._plan(load)
        self._positions.intend(plan)
        self._put(load, plan)

    def _plan(self, load: Load) -> dict[str, object]:
        now = datetime.now(UTC)
        stream = self._settings.name
        error_prefix = self._error_prefix or self._prefix + "processing-failed/"
        return {
            "key": name_of(self._prefix, stream=stream, oldest=load.oldest, now=now),
            "error_key": name_of(
                error_prefix, stream=stream, oldest=load.oldest, now=now, error_type="processing-failed"
            ),
            "spans": load.spans,
        }

    def _put(self, load: Load, plan: dict[str, object]) -> None:
        if load.errors:
            self._bucket.put(str(plan["error_key"]), load.errors)
            self._metrics.errors.inc(len(load.errors))
        if load.lines:
            self._bucket.put(str(plan["key"]), load.lines)
        self._positions.commit({shard: last for shard, (_, last) in load.spans.items()})
        self._metrics.records.inc(load.records)
        self._log.info("delivered", key=plan["key"], records=load.records, bytes=len(load.lines))

    def _redo_plan(self) -> None:
        """A delivery that was cut short: the very same records again, to the very same names."""
        plan = self._positions.plan
        if plan is None:
            return
        again = Buffer(bytes_max=self._settings.buffer_bytes, wait_s=0)
        for shard, (first, last) in plan["spans"].items():
            self._read_span(shard, first, last, again)
        if self._stop.is_set():
            return
        self._log.info("delivery_repeated", key=plan["key"], records=len(again))
        if len(again):
            self._put(again.take(), plan)
        else:
            self._positions.commit({shard: last for shard, (_, last) in plan["spans"].items()})

    def _read_span(self, shard: str, first: str, last: str, into: Buffer) -> None:
        """Up to the last record of the plan, or the tip if some have expired since."""
        iterator: str | None = None
        at, reached = first, int(first) - 1
        while not self._stop.is_set():
            try:
                iterator = iterator or self._source.iterator_at(shard, at)
                page = self._source.page(iterator)
            except worker.ServiceError as error:
                iterator = None
                self._read_failed(error)
                self._stop.wait(_POLL_EVERY_S)
                continue
            for record in page.records:
                if int(record.sequence) > int(last):
                    return
                if int(record.sequence) > reached:
                    into.add(shard, frame(record, now=datetime.now(UTC)), time.monotonic())
                    at, reached = record.sequence, int(record.sequence)
            iterator = page.next_iterator
            if reached >= int(last) or iterator is None or (not page.records and not page.behind_ms):
                return

    def _finish_shards(self) -> None:
        """A shard is finished when its last record is delivered."""
        for shard in tuple(self._ended):
            if self._read_after.get(shard) in (None, self._positions.after(shard)):
                self._positions.finish(shard)
                self._ended.discard(shard)

    def _observe(self) -> None:
        oldest = self._buffer.oldest
        self._metrics.buffered_bytes.set(self._buffer.size)
        self._metrics.freshness_s.set((datetime.now(UTC) - oldest).total_seconds() if oldest else 0)


def open_positions(
    positions: Positions, source: KinesisStream, settings: DeliverySettings, log: worker.Log, stop: threading.Event
) -> None:
    """Positions for this very stream; the first time, where each shard begins."""
    while not stop.is_set():
        try:
            created, shards = source.created(), source.shards()
        except worker.ServiceError as error:
            log.warning("read_failed", error=worker.one_line(error))
            stop.wait(_POLL_EVERY_S)
            continue
        if not positions.is_new and not positions.belongs_to(created):
            log.problem("stream_made_anew", hint="the old stream's positions are put aside; this one is read whole")
        if positions.is_new or not positions.belongs_to(created):
            positions.begin(created, shards, settings.starting_position)
        return
