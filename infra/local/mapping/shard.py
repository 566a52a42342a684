"""One shard at work: a thread that polls it, and one for each lane that invokes the function."""

import threading
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from config.limits import MAPPING_BATCH_BYTES_MAX, MAPPING_POLLS_PER_SHARD_S
from infra.local import worker
from infra.local.mapping.checkpoint import Checkpoint
from infra.local.mapping.destination import Destination, span
from infra.local.mapping.event import Change, event_of
from infra.local.mapping.lane import Discard, Invoke, Lane, Policy, Wait
from infra.local.mapping.metrics import Metrics
from infra.local.mapping.outcome import Failed, NotInvoked, Outcome, Returned
from infra.local.mapping.positions import Positions
from infra.local.mapping.stream import ExpiredError, Page, Stream, TrimmedError

POLL_EVERY_S = 1 / MAPPING_POLLS_PER_SHARD_S
_AHEAD_BYTES_MAX = 2 * MAPPING_BATCH_BYTES_MAX
"""What a lane may hold besides its batch before the shard is read no further."""

Invoker = Callable[[bytes], Outcome]


@dataclass(frozen=True)
class Parts:
    """What the shards of a mapping share."""

    stream: Stream
    positions: Positions
    invoke: Invoker
    destination: Destination | None
    policy: Policy
    parallelization: int
    metrics: Metrics
    log: worker.Log
    stop: threading.Event
    """Set: finish what runs, and end."""


class ShardReader:
    """Polls, hands out, keeps the position. `wake` is called when the shard is read to its end, or failed."""

    def __init__(self, shard: str, parts: Parts, wake: Callable[[], None]) -> None:
        self.shard = shard
        self.failure: Exception | None = None
        self._parts = parts
        self._wake = wake
        self._changed = threading.Condition()
        self._lanes = [Lane(parts.policy) for _ in range(parts.parallelization)]
        self._pending_bytes = 0
        self._checkpoint = Checkpoint(parts.positions.after(shard))
        self._read_after = self._checkpoint.after
        self._is_ended = False
        self._threads = [
            threading.Thread(target=self._guarded, args=(self._poll,), name=f"{shard}/poll"),
            *(
                threading.Thread(target=self._guarded, args=(lambda lane=lane: self._work(lane),), name=f"{shard}/lane")
                for lane in self._lanes
            ),
        ]

    def begin(self) -> None:
        for thread in self._threads:
            thread.start()

    def stopped(self) -> None:
        """To be called once `stop` is set: wakes who waits, returns when all have ended."""
        with self._changed:
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    @property
    def is_finished(self) -> bool:
        with self._changed:
            return self._is_ended and not len(self._checkpoint)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - the main thread raises it again: no shard dies unseen
            self.failure = error
        finally:
            self._wake()

    # Reading

    def _poll(self) -> None:
        iterator: str | None = None
        failures = 0
        while self._has_room():
            started_s = time.monotonic()
            try:
                iterator = iterator or self._iterator()
                page = self._parts.stream.page(iterator)
            except (TrimmedError, ExpiredError) as error:
                iterator = None
                if isinstance(error, TrimmedError):
                    self._restart()
                self._parts.stop.wait(POLL_EVERY_S)
                continue
            except worker.ServiceError as error:
                # An iterator outlives no restart of an emulator, and a new one costs a call: take it from the position.
                iterator = None
                failures += 1
                self._parts.metrics.read_failures.inc()
                self._parts.log.warning(
                    "read_failed", shard=self.shard, error=worker.one_line(error), failures=failures
                )
                self._parts.stop.wait(worker.backoff_s(failures, first_s=POLL_EVERY_S, longest_s=5))
                continue
            failures = 0
            self._hand_out(page)
            iterator = page.next_iterator
            if iterator is None:
                return
            if not page.is_full:
                self._parts.stop.wait(max(0.0, started_s + POLL_EVERY_S - time.monotonic()))

    def _has_room(self) -> bool:
        """Waits while enough is read ahead; False when it is time to stop."""
        with self._changed:
            while not self._parts.stop.is_set() and self._is_full():
                self._changed.wait()
        return not self._parts.stop.is_set()

    def _is_full(self) -> bool:
        ahead = 2 * self._parts.policy.batch_records_max * self._parts.parallelization
        return self._pending_bytes > _AHEAD_BYTES_MAX * len(self._lanes) or len(self._checkpoint) > max(1000, ahead)

    def _iterator(self) -> str:
        start = self._parts.positions.start(self.shard) or "TRIM_HORIZON"
        return self._parts.stream.iterator(self.shard, after=self._read_after, start=start)

    def _restart(self) -> None:
        """The stream has dropped the position: changes may be gone, and that must not pass unsaid."""
        self._parts.log.problem(
            "position_trimmed",
            shard=self.shard,
            after=self._read_after,
            hint="changes may have expired unread: verify the table, or rebuild it",
        )
        self._parts.metrics.restarts.inc()
        self._parts.positions.forget(self.shard)
        self._read_after = None

    def _hand_out(self, page: Page) -> None:
        metrics = self._parts.metrics
        metrics.polls.labels(self.shard).inc()
        metrics.records.labels(self.shard).inc(len(page.changes))
        shares: list[list[Change]] = [[] for _ in self._lanes]
        for change in page.changes:
            shares[zlib.crc32(change.item) % len(shares)].append(change)
        now_s = time.time()
        with self._changed:
            if page.changes:
                self._read_after = page.changes[-1].sequence
                self._checkpoint.read(page.changes)
                self._pending_bytes += sum(len(change.encoded) for change in page.changes)
                for lane, share in zip(self._lanes, shares, strict=True):
                    lane.add(share, now_s)
            self._is_ended = page.next_iterator is None
            self._update_backlog()
            self._changed.notify_all()

    # Working

    def _work(self, lane: Lane) -> None:
        while True:
            with self._changed:
                action = lane.next(time.time(), closing=self._is_ended)
                while isinstance(action, Wait):
                    if self._parts.stop.is_set() or (self._is_ended and not len(lane)):
                        return
                    self._changed.wait(None if action.until_s is None else max(0.0, action.until_s - time.time()))
                    action = lane.next(time.time(), closing=self._is_ended)
            if self._parts.stop.is_set():
                return
            if isinstance(action, Invoke):
                self._invoke(lane, action)
            else:
                self._discard(lane, action)

    def _invoke(self, lane: Lane, action: Invoke) -> None:
        changes = action.batch.changes
        metrics = self._parts.metrics
        metrics.iterator_age_s.labels(self.shard).set(max(0.0, time.time() - changes[-1].created_s))
        metrics.batch_records.observe(len(changes))
        with metrics.duration_s.time():
            outcome = self._parts.invoke(event_of(changes))
        with self._changed:
            done = lane.settle(outcome, time.time())
        self._count(outcome, changes, done)
        self._finish(done)

    def _count(self, outcome: Outcome, changes: Sequence[Change], done: Sequence[Change]) -> None:
        match outcome:
            case Returned():
                kind = "success" if len(done) == len(changes) else "partial"
            case Failed(error, message):
                kind = "error"
                self._parts.log.warning(
                    "function_failed", shard=self.shard, error=error, message=message, **span(changes)
                )
            case NotInvoked(message):
                kind = "not_invoked"
                self._parts.log.warning("function_not_invoked", shard=self.shard, message=message, **span(changes))
        self._parts.metrics.invocations.labels(kind).inc()

    def _discard(self, lane: Lane, discard: Discard) -> None:
        changes = discard.batch.changes
        if not self._is_delivered(discard):
            return
        self._parts.log.problem(
            "discarded",
            shard=self.shard,
            condition=discard.condition,
            destination=self._parts.destination is not None,
            **span(changes),
        )
        self._parts.metrics.discarded.labels(discard.condition).inc(len(changes))
        with self._changed:
            done = lane.discarded()
        self._finish(done)

    def _is_delivered(self, discard: Discard) -> bool:
        """Tries until the destination has it, or the mapping stops; then it is sent after the next start."""
        failures = 0
        while self._parts.destination is not None:
            try:
                self._parts.destination.send(discard, shard=self.shard)
            except worker.ServiceError as error:
                failures += 1
                self._parts.metrics.destination_failures.inc()
                self._parts.log.problem("destination_failed", shard=self.shard, error=worker.one_line(error))
                if self._parts.stop.wait(worker.backoff_s(failures, first_s=0.5, longest_s=30)):
                    return False
            else:
                return True
        return True

    def _finish(self, done: Sequence[Change]) -> None:
        if not done:
            return
        with self._changed:
            self._pending_bytes -= sum(len(change.encoded) for change in done)
            if self._checkpoint.done(done) and self._checkpoint.after is not None:
                # Under the lock: positions are written in the order in which they moved.
                self._parts.positions.move(self.shard, self._checkpoint.after)
            self._update_backlog()
            self._changed.notify_all()
        self._parts.metrics.records_done.labels(self.shard).inc(len(done))

    def _update_backlog(self) -> None:
        self._parts.metrics.backlog.labels(self.shard).set(len(self._checkpoint))
