"""Which shards may be read: a child only when all its parents are read to their end. Pure values, no AWS, no Spark."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from streaming_job.kinesis.offsets import Offset, Position, ShardRef, StreamOffset


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard as ListShards tells it; parents that are no longer listed are read or trimmed."""

    id: str
    parents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StreamInfo:
    name: str
    created_ms: int
    retention_ms: int
    arn: str = ""
    trimmed_ms: int = 0
    """What arrived before may have been trimmed when less was kept: of the checkpoint's."""


Listing = Mapping[str, tuple[Shard, ...]]
"""By stream."""


def initial_offset(infos: Iterable[StreamInfo], listing: Listing, start: Position) -> Offset:
    """Every listed shard at the same place, parents and children alike.

    A child that was open at the start time must begin at that time too, not at its trim horizon; what its parents had
    after that time is read before it, by the rule of `readable`.
    """
    return Offset(
        {
            info.name: StreamOffset(
                info.created_ms, {shard.id: start for shard in listing[info.name]}, retention_ms=info.retention_ms
            )
            for info in infos
        },
        fresh=True,
    )


def keeping(offset: Offset, infos: Mapping[str, StreamInfo], now_ms: int) -> Offset:
    """The offset with the streams' retentions as they are now."""
    streams = {name: stream.keeping(infos[name].retention_ms, now_ms) for name, stream in offset.streams.items()}
    return replace(offset, streams=streams)


def as_known(infos: Mapping[str, StreamInfo], offset: Offset) -> dict[str, StreamInfo]:
    """The streams, with what the offset knows of them."""
    return {name: replace(info, trimmed_ms=offset.streams[name].trimmed_ms) for name, info in infos.items()}


def adopt(offset: Offset, listing: Listing) -> Offset:
    """Shards that appeared since: from their trim horizon, because they were born after everything the offset knows.

    `seen_ms` is the parents': until the parents' end was read nothing of the child can have been missed.
    """
    moves: dict[ShardRef, Position] = {}
    for name, stream in offset.streams.items():
        seen_ms = _SeenMs(stream, listing.get(name, ()))
        for shard in listing.get(name, ()):
            if shard.id not in stream.shards:
                moves[ShardRef(name, shard.id)] = Position.trim_horizon(seen_ms=seen_ms.of(shard.id))
    return offset.moved(moves) if moves else offset


class _SeenMs:
    """Of a shard that the offset does not know, by its lineage.

    Several generations may appear at once. Of one that came and was forgotten in between nothing was read: what is
    known then is what is known of all shards, so that reading its children tells of the loss.
    """

    def __init__(self, stream: StreamOffset, listed: Iterable[Shard]) -> None:
        self._known = {shard: position.seen_ms for shard, position in stream.shards.items()}
        self._parents = {shard.id: shard.parents for shard in listed}
        self._least = min(self._known.values(), default=0)

    def of(self, shard: str) -> int:
        if shard not in self._known:
            parents = self._parents.get(shard, ())
            self._known[shard] = min((self.of(parent) for parent in parents), default=self._least)
        return self._known[shard]


def prune(offset: Offset, listing: Listing) -> Offset:
    """Without shards that are read to their end and that Kinesis has forgotten: they cannot come back."""
    gone = {
        ref
        for ref, position in offset.positions().items()
        if position.is_closed and ref.stream in listing and ref.shard not in {s.id for s in listing[ref.stream]}
    }
    return offset.without(gone) if gone else offset


def readable(offset: Offset, listing: Listing) -> dict[ShardRef, Position]:
    """Shards that are not read to their end and whose parents all are (or are known no more).

    A child is born when all its parents have ended: of one of which nothing has been read, nothing was missed up to
    when the last of them was still seen open.
    """
    result: dict[ShardRef, Position] = {}
    for name, stream in offset.streams.items():
        parents = {shard.id: shard.parents for shard in listing.get(name, ())}
        for shard_id, position in stream.shards.items():
            if position.is_closed:
                continue
            known = [stream.shards[parent] for parent in parents.get(shard_id, ()) if parent in stream.shards]
            if all(parent.is_closed for parent in known):
                seen_ms = max((parent.seen_ms for parent in known), default=0) if position.is_unread else 0
                result[ShardRef(name, shard_id)] = position.seen(seen_ms)
    return result


def vanished(offset: Offset, listing: Listing) -> list[ShardRef]:
    """Shards with something left to read that Kinesis no longer lists: their records are past the retention."""
    return sorted(
        ref
        for ref, position in offset.positions().items()
        if not position.is_closed and ref.shard not in {shard.id for shard in listing.get(ref.stream, ())}
    )
