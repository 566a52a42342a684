"""Writes telemetry at a stated rate and tells honestly what came of it.

Open loop: each write has its time from the start on, and a slow answer does not push the later ones back; what starts
late is counted. A key belongs to one worker, so that two writes of one key are never under way at once.
"""

import queue
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from infra.local.plan import OPS, Mix, Op, Operation, operations
from infra.local.telemetry import telemetry_item, to_dynamodb

LATE_MS = 50
"""A write that starts later than this after its time counts as late."""
_WORKERS = 8


class Table(Protocol):
    """The one seam: a DynamoDB client."""

    def put_item(self, *, TableName: str, Item: Mapping[str, Any]) -> Any: ...  # noqa: N803 - boto3's names

    def delete_item(self, *, TableName: str, Key: Mapping[str, Any]) -> Any: ...  # noqa: N803 - boto3's names


@dataclass(frozen=True, kw_only=True)
class LoadPlan:
    table: str
    rate: float
    seconds: float
    seed: int
    run: str
    mix: Mix

    @property
    def count(self) -> int:
        return round(self.rate * self.seconds)


@dataclass
class Progress:
    """Written by the workers under the lock, read by whoever shows it."""

    sent: dict[Op, int] = field(default_factory=lambda: dict.fromkeys(OPS, 0))
    errors: int = 0
    error_last: str | None = None
    late: int = 0
    late_ms_max: float = 0.0
    live: set[int] = field(default_factory=set)
    keys: set[int] = field(default_factory=set)
    unsure: set[int] = field(default_factory=set)
    """Keys whose last write failed: it may have taken place or not."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def done(self) -> int:
        return sum(self.sent.values()) + self.errors


@dataclass(frozen=True, kw_only=True)
class Summary:
    run: str
    seed: int
    planned: int
    sent: dict[Op, int]
    sent_total: int
    errors: int
    error_last: str | None
    rate_asked: float
    rate_achieved: float
    seconds: float
    late: int
    late_ms_max: float
    keys: int
    live_expected: int
    unsure: int
    interrupted: bool


class Load:
    def __init__(self, plan: LoadPlan, client: Table, *, clock_ms: Callable[[], int] | None = None) -> None:
        self._plan, self._client = plan, client
        self._clock_ms = clock_ms or (lambda: time.time_ns() // 1_000_000)
        self._stop = threading.Event()
        self._queues: list[queue.SimpleQueue[tuple[Operation, float] | None]] = [
            queue.SimpleQueue() for _ in range(_WORKERS)
        ]
        self.progress = Progress()

    def stop(self) -> None:
        """No further write is begun; those under way end."""
        self._stop.set()

    def run(self) -> Summary:
        workers = [threading.Thread(target=self._work, args=(line,), name="load") for line in self._queues]
        for worker in workers:
            worker.start()
        began = time.monotonic()
        try:
            self._schedule(began)
        except KeyboardInterrupt:
            self.stop()
        finally:
            for line in self._queues:
                line.put(None)
            for worker in workers:
                worker.join()
        return self._summary(time.monotonic() - began)

    def _schedule(self, began: float) -> None:
        plan = self._plan
        for operation in operations(plan.seed, plan.run, plan.mix, plan.count):
            due = began + operation.index / plan.rate
            if self._stop.wait(max(0.0, due - time.monotonic())):
                return
            self._queues[operation.key_number % _WORKERS].put((operation, due))

    def _work(self, line: "queue.SimpleQueue[tuple[Operation, float] | None]") -> None:
        while (work := line.get()) is not None:
            if self._stop.is_set():
                continue
            operation, due = work
            late_ms = (time.monotonic() - due) * 1000
            error = self._write(operation)
            with self.progress.lock:
                self._note(operation, late_ms, error)

    def _write(self, operation: Operation) -> str | None:
        try:
            if operation.op == "delete":
                self._client.delete_item(TableName=self._plan.table, Key={"event_id": {"S": operation.event_id}})
            else:
                rng = random.Random(operation.content_seed)
                item = telemetry_item(rng, self._clock_ms(), event_id=operation.event_id)
                self._client.put_item(TableName=self._plan.table, Item=to_dynamodb(item))
        except (BotoCoreError, ClientError) as error:
            return " ".join(str(error).split())
        return None

    def _note(self, operation: Operation, late_ms: float, error: str | None) -> None:
        progress = self.progress
        progress.keys.add(operation.key_number)
        progress.late += late_ms > LATE_MS
        progress.late_ms_max = max(progress.late_ms_max, late_ms)
        if error is not None:
            progress.errors += 1
            progress.error_last = error
            progress.unsure.add(operation.key_number)
            return
        progress.sent[operation.op] += 1
        progress.unsure.discard(operation.key_number)
        if operation.op == "delete":
            progress.live.discard(operation.key_number)
        else:
            progress.live.add(operation.key_number)

    def _summary(self, seconds: float) -> Summary:
        progress, plan = self.progress, self._plan
        total = sum(progress.sent.values())
        return Summary(
            run=plan.run,
            seed=plan.seed,
            planned=plan.count,
            sent=dict(progress.sent),
            sent_total=total,
            errors=progress.errors,
            error_last=progress.error_last,
            rate_asked=plan.rate,
            rate_achieved=round(total / seconds, 2) if seconds else 0.0,
            seconds=round(seconds, 3),
            late=progress.late,
            late_ms_max=round(progress.late_ms_max, 1),
            keys=len(progress.keys),
            live_expected=len(progress.live),
            unsure=len(progress.unsure),
            interrupted=self._stop.is_set(),
        )
