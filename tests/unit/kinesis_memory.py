"""Kinesis in memory: shards, parents, trimming by age, iterators that expire, faults on demand."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field

from streaming_job.kinesis.errors import IteratorExpiredError, StreamMissingError
from streaming_job.kinesis.fetch import Answer
from streaming_job.kinesis.offsets import Kind, Position, ShardRef
from streaming_job.kinesis.rows import Rows
from streaming_job.kinesis.shards import Shard, StreamInfo

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


@dataclass
class HandClock:
    """Time moves when a test, or a sleep, moves it."""

    ms: int = 1_800_000_000_000
    slept_ms: int = 0

    def now_ms(self) -> int:
        return self.ms

    def sleep_ms(self, ms: int) -> None:
        self.ms += ms
        self.slept_ms += ms


@dataclass
class MemoryRecord:
    sequence: int
    arrival_ms: int
    key: str
    data: bytes


@dataclass
class MemoryShard:
    parents: tuple[str, ...] = ()
    records: list[MemoryRecord] = field(default_factory=list)
    closed: bool = False


@dataclass
class MemoryKinesis:
    """Implements `KinesisApi` for one stream."""

    clock: HandClock = field(default_factory=HandClock)
    stream: str = "s"
    created_ms: int = 1_700_000_000_000
    retention_ms: int = DAY_MS
    shards: dict[str, MemoryShard] = field(default_factory=lambda: {"shardId-0": MemoryShard()})
    faults: deque[Exception] = field(default_factory=deque)
    """Each is raised once, by the next calls of GetRecords."""
    calls: list[str] = field(default_factory=list)
    meanwhile: Callable[[], object] = lambda: None
    """Happens while each call of GetRecords is under way."""
    subscriptions: int = 0
    """Open now."""
    page: int = 10_000
    _sequence: int = 10**20
    _iterators: dict[str, tuple[str, int]] = field(default_factory=dict)

    # What a test does.

    def put(self, shard: str, *data: bytes, key: str = "k") -> list[str]:
        sequences = []
        for each in data:
            self._sequence += 7
            self.shards[shard].records.append(MemoryRecord(self._sequence, self.clock.ms, key, each))
            sequences.append(str(self._sequence))
        return sequences

    def split(self, shard: str, *children: str) -> None:
        self.reshard([shard], children)

    def reshard(self, parents: Iterable[str], children: Iterable[str]) -> None:
        for parent in parents:
            self.shards[parent].closed = True
        for child in children:
            self.shards[child] = MemoryShard(parents=tuple(parents))

    def expire_iterators(self) -> None:
        self._iterators.clear()

    def ref(self, shard: str = "shardId-0") -> ShardRef:
        return ShardRef(self.stream, shard)

    def info(self) -> StreamInfo:
        return StreamInfo(self.stream, self.created_ms, self.retention_ms)

    # What the reader calls.

    def describe(self, stream: str) -> StreamInfo:
        if stream != self.stream:
            raise StreamMissingError(f"{stream} does not exist")
        return self.info()

    def list_shards(self, stream: str) -> tuple[Shard, ...]:
        return tuple(Shard(name, shard.parents) for name, shard in self.shards.items())

    def iterator(self, ref: ShardRef, position: Position, *, inclusive: bool = False) -> str:
        floor = 0
        if position.kind is Kind.AFTER:
            floor = int(position.sequence) + (0 if inclusive else 1)
        elif position.kind is Kind.AT_MS:
            # To the whole second, as some clients cut it.
            cut_ms = position.at_ms // 1000 * 1000
            later = [r.sequence for r in self._left(ref.shard) if r.arrival_ms >= cut_ms]
            floor = later[0] if later else self._sequence + 1
        return self._issue(ref.shard, floor)

    def get_records(self, iterator: str, limit: int) -> Answer:
        self.calls.append("get_records")
        self.meanwhile()
        if self.faults:
            raise self.faults.popleft()
        if iterator not in self._iterators:
            raise IteratorExpiredError("ExpiredIteratorException")
        shard_id, floor = self._iterators[iterator]
        shard = self.shards[shard_id]
        left = [record for record in self._left(shard_id) if record.sequence >= floor]
        found = left[: min(limit, self.page)]
        at_end = shard.closed and len(found) == len(left)
        behind_ms = 0 if len(found) == len(left) else self.clock.ms - left[len(found)].arrival_ms or 1
        return Answer(
            rows=Rows.of(
                [str(r.sequence) for r in found],
                [r.arrival_ms for r in found],
                [r.key for r in found],
                [r.data for r in found],
            ),
            sequences=tuple(str(record.sequence) for record in found),
            arrival_ms=found[-1].arrival_ms if found else 0,
            behind_ms=behind_ms,
            next_iterator=None if at_end else self._issue(shard_id, found[-1].sequence + 1 if found else floor),
        )

    def subscribe(self, consumer_arn: str, ref: ShardRef, position: Position) -> Generator[Answer]:
        """A subscription that ends, as Kinesis', after some events."""
        self.calls.append("subscribe")
        iterator: str | None = self.iterator(ref, position)
        self.subscriptions += 1
        try:
            for _ in range(2):
                if iterator is not None:
                    answer = self.get_records(iterator, 10_000)
                    iterator = answer.next_iterator
                    yield answer
        finally:
            self.subscriptions -= 1

    def _left(self, shard: str) -> list[MemoryRecord]:
        horizon_ms = self.clock.ms - self.retention_ms
        return [record for record in self.shards[shard].records if record.arrival_ms >= horizon_ms]

    def _issue(self, shard: str, floor: int) -> str:
        token = f"{shard}-{len(self._iterators)}-{floor}-{len(self.calls)}"
        self._iterators[token] = (shard, floor)
        return token
