"""What the mapping meets, in memory: shards with parents, a function and a destination; and itself in a thread."""

import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botocore.exceptions import EndpointConnectionError

from infra.local.lineage import Shard
from infra.local.mapping.destination import Destination
from infra.local.mapping.event import Change
from infra.local.mapping.lane import Discard, Policy
from infra.local.mapping.metrics import Metrics
from infra.local.mapping.outcome import Outcome, Returned
from infra.local.mapping.positions import Positions
from infra.local.mapping.shard import Parts
from infra.local.mapping.shards import Mapping
from infra.local.mapping.stream import Page, TrimmedError
from infra.local.worker import Log

ARN = "arn:aws:dynamodb:us-east-1:000000000000:table/cars/stream/2026-01-01T00:00:00.000"
PAGE = 50


@dataclass
class ShardedStream:
    """Shards with parents, in memory, answering as DynamoDB documents it."""

    lineage: list[Shard] = field(default_factory=list)
    records: dict[str, list[Change]] = field(default_factory=lambda: defaultdict(list))
    polls: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    trimmed: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    page_records_max: int = PAGE
    faults: list[Exception] = field(default_factory=list)
    """Raised by the next calls for a page, one each."""

    def shards(self) -> list[Shard]:
        return list(self.lineage)

    def iterator(self, shard: str, *, after: str | None, start: str) -> str:
        records = self.records[shard]
        if after is None:
            return f"{shard}:{self.trimmed[shard] if start == 'TRIM_HORIZON' else len(records)}"
        index = [record.sequence for record in records].index(after) + 1
        if index < self.trimmed[shard]:
            raise TrimmedError(after)
        return f"{shard}:{index}"

    def page(self, iterator: str) -> Page:
        if self.faults:
            raise self.faults.pop(0)
        shard, index = iterator.split(":")
        self.polls[shard].append(time.monotonic())
        records = tuple(self.records[shard][int(index) : int(index) + self.page_records_max])
        end = int(index) + len(records)
        is_closed = next(each.closed for each in self.lineage if each.id == shard)
        at_end = is_closed and end == len(self.records[shard])
        return Page(records, None if at_end else f"{shard}:{end}")

    def put(self, shard: str, count: int, items: int = 5) -> None:
        for _ in range(count):
            number = sum(map(len, self.records.values()))
            item = f"{shard}/{number % items}"
            body = json.dumps({"shard": shard, "item": item, "number": number}).encode()
            self.records[shard].append(Change(f"{number:040d}", item.encode(), time.time(), body))

    @property
    def everything(self) -> list[int]:
        return sorted(json.loads(change.encoded)["number"] for each in self.records.values() for change in each)


class Recording:
    """A function that remembers what it was given; `answer` may fail it."""

    def __init__(self) -> None:
        self.answer: Callable[[list[dict[str, Any]]], Outcome] = lambda _: Returned(None)
        self.batches: list[list[dict[str, Any]]] = []
        self.succeeded: list[dict[str, Any]] = []
        self._lock = threading.Lock()

    def __call__(self, event: bytes) -> Outcome:
        records = json.loads(event)["Records"]
        with self._lock:
            self.batches.append(records)
        outcome = self.answer(records)
        if isinstance(outcome, Returned):
            with self._lock:
                self.succeeded += records
        return outcome

    @property
    def numbers(self) -> list[int]:
        with self._lock:
            return [record["number"] for record in self.succeeded]


class Keeping:
    """A destination that keeps what it is sent, after refusing it as often as told."""

    def __init__(self, refusals: int = 0) -> None:
        self.refusals = refusals
        self.sent: list[Discard] = []

    def send(self, discard: Discard, *, shard: str) -> None:
        if self.refusals:
            self.refusals -= 1
            raise EndpointConnectionError(endpoint_url="s3")
        self.sent.append(discard)


class Running:
    """A mapping in a thread, as the process runs it."""

    def __init__(
        self,
        folder: Path,
        stream: ShardedStream,
        function: Recording,
        *,
        parallelization: int = 1,
        destination: Destination | None = None,
        start: str = "TRIM_HORIZON",
        **knobs: Any,
    ) -> None:
        defaults: dict[str, Any] = {"batch_records_max": 10, "window_s": 0, "bisect": False, "retries_max": -1}
        more = {"age_max_s": -1, "report_failures": True, "backoff_first_s": 0.01, "backoff_longest_s": 0.05}
        self.stop = threading.Event()
        self.metrics = Metrics()
        self.positions = Positions(folder, ARN)
        self.failure: Exception | None = None
        parts = Parts(
            stream=stream,
            positions=self.positions,
            invoke=function,
            destination=destination,
            policy=Policy(**defaults | more | knobs),
            parallelization=parallelization,
            metrics=self.metrics,
            log=Log("mapping"),
            stop=self.stop,
        )
        self._mapping = Mapping(parts, start)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._mapping.run()
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.failure = error

    def ended(self) -> Exception | None:
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self.failure

    def end(self) -> None:
        self.stop.set()
        assert self.ended() is None

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0
