"""What can be wrong about reading Kinesis, and about when the position is saved."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa
from pyspark.sql.streaming.datasource import ReadLimit

from streaming_job.kinesis.offsets import Kind, Position, ShardRef
from streaming_job.kinesis.shards import Shard
from streaming_job.kinesis.tail import Tail
from tests.simulation.errors import KilledError
from tests.simulation.kinesis import SimKinesis
from tests.simulation.source import Query, SteppedPrefetcher, SteppedReader


class SavedBeforeTheSink(Query):
    """The batch counts as committed before it has reached the tables."""

    def _run(self, reader: SteppedReader, die_at: str) -> None:
        index = self.committed
        self.committed = index + 1
        try:
            self.committed = index
            super()._run(reader, die_at)
        except KilledError:
            self.committed = index + 1
            raise


class ChildrenWithoutParents(SimKinesis):
    """Shards listed as if none had a parent: a child is read while its parent still holds older records."""

    def list_shards(self, stream: str) -> tuple[Shard, ...]:
        return tuple(Shard(shard.id) for shard in super().list_shards(stream))


class TipAfterExpiry(SimKinesis):
    """An iterator that expired is taken again at the tip."""

    def iterator(self, ref: ShardRef, position: Position, *, inclusive: bool = False) -> str:
        if self.seen_faults["read: iterator expired"] and position.kind is Kind.AFTER and not inclusive:
            return self._issue(ref.shard, self._sequence + 1)
        return super().iterator(ref, position, inclusive=inclusive)


class NeverAskedAboutTrimming(SteppedPrefetcher):
    """When a shard was last seen at its tip is not kept: a trimmed one looks like an idle one."""

    def _turn(self, tail: Tail) -> None:
        tail._reader.position = replace(tail._reader.position, seen_ms=0)
        super()._turn(tail)


class LastRowDropped(SteppedReader):
    """A range without its end: [start, end) where (start, end] was planned."""

    def read(self, partition: Any) -> Iterator[pa.RecordBatch]:
        batches = list(super().read(partition))
        for batch in batches[:-1]:
            yield batch
        for batch in batches[-1:]:
            yield batch.slice(0, batch.num_rows - 1) if batch.num_rows > 1 else batch


class NewShardsUnread(SteppedReader):
    """A shard that the start of a batch does not name yet is passed over, whatever was planned of it."""

    def partitions(self, start: dict[str, Any], end: dict[str, Any]) -> Any:
        streams = {
            name: {
                **stream,
                "shards": {s: p for s, p in stream["shards"].items() if s in start["streams"][name]["shards"]},
            }
            for name, stream in end["streams"].items()
        }
        return super().partitions(start, {**end, "streams": streams})


class ForgetsClosedShards(SteppedReader):
    """A shard read to its end leaves the offset at once, and is read from its beginning when it is seen again."""

    def latestOffset(self, start: dict[str, Any], limit: ReadLimit) -> dict[str, Any]:  # noqa: N802 - Spark's name
        end = super().latestOffset(start, limit)
        if end == start:
            return end
        streams = {
            name: {
                **stream,
                "shards": {
                    s: p
                    for s, p in stream["shards"].items()
                    if "closed" not in p or s not in start["streams"][name]["shards"]
                },
            }
            for name, stream in end["streams"].items()
        }
        return {**end, "streams": streams}
