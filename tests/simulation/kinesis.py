"""Kinesis with hash ranges, splits, merges and a retention; PutRecords as it may fail."""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import md5
from random import Random
from typing import Any, Final

from botocore.exceptions import ClientError, ReadTimeoutError

from config.limits import KINESIS_PUT_BYTES_MAX, KINESIS_PUT_RECORDS_MAX, KINESIS_RECORD_BYTES_MAX
from streaming_job.kinesis.errors import IteratorExpiredError, StreamMissingError, ThrottledError, TransientError
from streaming_job.kinesis.fetch import Answer
from streaming_job.kinesis.offsets import Position, ShardRef
from streaming_job.kinesis.rows import Rows
from streaming_job.kinesis.shards import Shard
from tests.simulation.clock import MachineClock
from tests.simulation.observations import Journal, Landed
from tests.unit.kinesis_memory import MemoryKinesis, MemoryRecord, MemoryShard

STREAM: Final = "changes"
_HASH_END: Final = 2**128
_TIMEOUT_MS: Final = 4_000

PUT_FAULTS: Final = ("partial", "throttled", "timed out", "timed out, landed", "timed out, landed late", "shuffled",
                     "internal", "slow")  # fmt: skip
READ_FAULTS: Final = ("throttled", "reset", "iterator expired", "empty answer", "small page")


@dataclass(frozen=True)
class PutFault:
    kind: str
    seed: int


@dataclass
class SimKinesis(MemoryKinesis):
    """MemoryKinesis, which the source's own tests read, with a way in for the bridge."""

    stream: str = STREAM
    journal: Journal = field(default_factory=list)
    ranges: dict[str, tuple[int, int]] = field(default_factory=dict)
    closed_ms: dict[str, int] = field(default_factory=dict)
    put_faults: deque[PutFault] = field(default_factory=deque)
    read_faults: deque[str] = field(default_factory=deque)
    late: list[tuple[Sequence[tuple[bytes, str]], int]] = field(default_factory=list)
    """Calls that have timed out and are still under way."""
    refused_keys: set[str] = field(default_factory=set)
    seen_faults: Counter[str] = field(default_factory=Counter)
    landed: list[Landed] = field(default_factory=list)

    @classmethod
    def of(cls, count: int, *, first_sequence: int, **more: Any) -> "SimKinesis":
        kinesis = cls(shards={}, _sequence=first_sequence, **more)
        for index in range(count):
            kinesis.add_shard((), (_HASH_END * index // count, _HASH_END * (index + 1) // count))
        return kinesis

    # --- shards -------------------------------------------------------------------------------------------------------

    def add_shard(self, parents: tuple[str, ...], hashes: tuple[int, int]) -> None:
        name = f"shardId-{len(self.ranges):012d}"
        self.shards[name] = MemoryShard(parents=parents)
        self.ranges[name] = hashes

    @property
    def open_shards(self) -> list[str]:
        return [name for name, shard in self.shards.items() if not shard.closed]

    def split_at(self, choice: int) -> None:
        parent = self.open_shards[choice % len(self.open_shards)]
        low, high = self.ranges[parent]
        if high - low >= 2:
            self._close(parent)
            middle = (low + high) // 2
            self.add_shard((parent,), (low, middle))
            self.add_shard((parent,), (middle, high))

    def merge_at(self, choice: int) -> None:
        opened = sorted(self.open_shards, key=lambda name: self.ranges[name])
        if len(opened) < 2:
            return
        at = choice % (len(opened) - 1)
        one, other = opened[at], opened[at + 1]
        self._close(one)
        self._close(other)
        self.add_shard((one, other), (self.ranges[one][0], self.ranges[other][1]))

    def _close(self, name: str) -> None:
        self.shards[name].closed = True
        self.closed_ms[name] = self.clock.ms

    def list_shards(self, stream: str) -> tuple[Shard, ...]:
        """Closed shards are forgotten once nothing of them is left."""
        horizon_ms = self.clock.ms - self.retention_ms
        return tuple(
            shard for shard in super().list_shards(stream) if self.closed_ms.get(shard.id, horizon_ms) >= horizon_ms
        )

    def iterator(self, ref: ShardRef, position: Position, *, inclusive: bool = False) -> str:
        if ref.shard not in {shard.id for shard in self.list_shards(ref.stream)}:
            raise StreamMissingError(f"{ref} does not exist")
        return super().iterator(ref, position, inclusive=inclusive)

    # --- writing ------------------------------------------------------------------------------------------------------

    def put_records(self, records: Sequence[tuple[bytes, str]], caller: MachineClock) -> list[str | None]:
        """Sequence numbers, None where a record was refused; or an error of botocore's for the call."""
        assert 1 <= len(records) <= KINESIS_PUT_RECORDS_MAX
        sizes = [len(data) + len(key.encode()) for data, key in records]
        assert sum(sizes) <= KINESIS_PUT_BYTES_MAX
        assert max(sizes) <= KINESIS_RECORD_BYTES_MAX
        called_ms = caller.now_ms()
        fault = self.put_faults.popleft() if self.put_faults else PutFault("none", 0)
        if any(key in self.refused_keys for _, key in records):
            self.seen_faults["put: refused as invalid"] += 1
            raise _client_error("InvalidArgumentException")
        if fault.kind != "none":
            self.seen_faults[f"put: {fault.kind}"] += 1
        return self._put(records, fault, called_ms)

    def _put(self, records: Sequence[tuple[bytes, str]], fault: PutFault, called_ms: int) -> list[str | None]:
        rng = Random(fault.seed)
        self.clock.sleep_ms(_TIMEOUT_MS if fault.kind.startswith("timed out") or fault.kind == "slow" else 7)
        match fault.kind:
            case "throttled":
                raise _client_error("ProvisionedThroughputExceededException")
            case "internal":
                raise _client_error("InternalFailure")
            case "timed out":
                raise ReadTimeoutError(endpoint_url="kinesis")
            case "timed out, landed":
                self._land(records, list(range(len(records))), called_ms, acknowledged=False)
                raise ReadTimeoutError(endpoint_url="kinesis")
            case "timed out, landed late":
                self.late.append((records, called_ms))
                raise ReadTimeoutError(endpoint_url="kinesis")
        accepted = [at for at in range(len(records)) if fault.kind != "partial" or rng.random() < 0.5]
        if fault.kind == "shuffled":
            rng.shuffle(accepted)
        sequences = self._land(records, accepted, called_ms, acknowledged=True)
        return [sequences.get(at) for at in range(len(records))]

    def land_late(self) -> None:
        for records, called_ms in self.late:
            self._land(records, list(range(len(records))), called_ms, acknowledged=False)
        self.late.clear()

    def _land(
        self, records: Sequence[tuple[bytes, str]], order: list[int], called_ms: int, *, acknowledged: bool
    ) -> dict[int, str]:
        sequences: dict[int, str] = {}
        for at in order:
            data, key = records[at]
            shard = self._shard_of(key)
            self._sequence += 7
            self.shards[shard].records.append(MemoryRecord(self._sequence, self.clock.ms, key, data))
            sequences[at] = str(self._sequence)
            landed = Landed(shard, self._sequence, key, data, acknowledged, called_ms, self.clock.ms)
            self.landed.append(landed)
            self.journal.append(landed)
        return sequences

    def _shard_of(self, key: str) -> str:
        point = int.from_bytes(md5(key.encode(), usedforsecurity=False).digest(), "big")
        return next(n for n in self.open_shards if self.ranges[n][0] <= point < self.ranges[n][1])

    # --- reading ------------------------------------------------------------------------------------------------------

    def get_records(self, iterator: str, limit: int) -> Answer:
        fault = self.read_faults.popleft() if self.read_faults else ""
        if fault:
            self.seen_faults[f"read: {fault}"] += 1
        match fault:
            case "throttled":
                raise ThrottledError("ProvisionedThroughputExceededException")
            case "reset":
                raise TransientError("ConnectionResetError")
            case "iterator expired":
                self._iterators.pop(iterator, None)
                raise IteratorExpiredError("ExpiredIteratorException")
            case "small page":
                return super().get_records(iterator, 1)
        answer = super().get_records(iterator, limit)
        return self._empty(iterator, answer) if fault == "empty answer" else answer

    def _empty(self, iterator: str, answer: Answer) -> Answer:
        """As Kinesis may, although there are records: the same place again, and not at the tip."""
        if not answer.sequences:
            return answer
        shard, floor = self._iterators[iterator]
        return Answer(rows=Rows(), behind_ms=1_000, next_iterator=self._issue(shard, floor))

    def consumer(self, _stream_arn: str, name: str) -> str:
        """Enhanced fan-out."""
        return name

    def deregister(self, consumer_arn: str) -> None:
        """Nothing is kept of it."""

    def trimmed_before_ms(self) -> int:
        return self.clock.ms - self.retention_ms


def _client_error(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": code}}, "PutRecords")


class BotoKinesis:
    """The one call of the client that the bridge's publisher makes."""

    def __init__(self, kinesis: SimKinesis, caller: MachineClock) -> None:
        self._kinesis = kinesis
        self._caller = caller

    def put_records(self, *, StreamName: str, Records: Sequence[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803
        assert StreamName == STREAM
        sequences = self._kinesis.put_records([(r["Data"], r["PartitionKey"]) for r in Records], self._caller)
        refused = {"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "slow down"}
        return {"Records": [{"SequenceNumber": s, "ShardId": "?"} if s else refused for s in sequences]}
