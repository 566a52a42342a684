"""The raw archive: what reads Kinesis beside the job and puts lines into objects, by a plan that survives a kill."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from infra.local.delivery.buffer import Buffer
from infra.local.delivery.framing import Record, frame
from infra.local.lineage import Shard, readable
from streaming_job.kinesis.errors import RetryableError
from streaming_job.kinesis.offsets import Position, ShardRef
from tests.simulation.kinesis import STREAM, SimKinesis
from tests.simulation.observations import Archived, Journal

_BUFFER_BYTES = 50_000


@dataclass
class Positions:
    """Durable."""

    after: dict[str, str] = field(default_factory=dict)
    finished: set[str] = field(default_factory=set)


class Delivery:
    """At least once: the position moves when the object is there."""

    def __init__(self, kinesis: SimKinesis, journal: Journal) -> None:
        self.objects: list[bytes] = []
        """Durable."""
        self.positions = Positions()
        self._kinesis = kinesis
        self._journal = journal
        self.crash()

    def crash(self) -> None:
        """What was read and not yet written is read again."""
        self._buffer = Buffer(bytes_max=_BUFFER_BYTES, wait_s=1)
        self._read_after: dict[str, str] = {}
        self._ended: set[str] = set()

    def poll(self) -> bool:
        """A page of each readable shard; whether any had records, or came to its end."""
        found = False
        for shard in self._readable():
            found |= self._page(shard)
        if self._buffer.is_full:
            self.deliver()
        return found

    def deliver(self, *, dies: bool = False) -> None:
        """A process that dies when the object is there, and the position has not moved, writes it again."""
        if len(self._buffer):
            self._put()
            if dies:
                self.crash()
                return
            self._commit()
        self._finish()

    def _put(self) -> None:
        self._spans = (load := self._buffer.take()).spans
        self.objects.append(load.lines)
        self._journal.append(Archived(load.lines))

    def _commit(self) -> None:
        self.positions.after |= {shard: last for shard, (_, last) in self._spans.items()}

    def _finish(self) -> None:
        for shard in sorted(self._ended):
            if self._read_after.get(shard) == self.positions.after.get(shard):
                self.positions.finished.add(shard)
        self._ended -= self.positions.finished

    def _readable(self) -> list[str]:
        shards = [Shard(shard.id, shard.parents) for shard in self._kinesis.list_shards(STREAM)]
        done = self.positions.finished | self._ended
        return [shard.id for shard in readable(shards, done)]

    def _page(self, shard: str) -> bool:
        after = self._read_after.get(shard) or self.positions.after.get(shard)
        position = Position.after(after) if after else Position.trim_horizon()
        try:
            answer = self._kinesis.get_records(self._kinesis.iterator(ShardRef(STREAM, shard), position), 10_000)
        except RetryableError:
            return False
        rows = answer.rows
        for sequence, arrival_ms, data in zip(rows.sequences, rows.arrivals_ms, rows.data, strict=True):
            arrival = datetime.fromtimestamp(arrival_ms / 1000, UTC)
            self._buffer.add(shard, frame(Record(sequence, arrival, data), now=arrival), arrival_ms / 1000)
            self._read_after[shard] = sequence
        if answer.next_iterator is None:
            self._ended.add(shard)
        return bool(rows) or answer.next_iterator is None
