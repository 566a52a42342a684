"""Shards and their parents: which of a stream's shards may be read now. DynamoDB and Kinesis describe them alike."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shard:
    id: str
    parents: tuple[str, ...] = ()
    closed: bool = False


def readable(shards: Iterable[Shard], finished: Collection[str]) -> list[Shard]:
    """Shards whose every parent is read to its end, or is no longer listed (its records expired)."""
    listed = {shard.id: shard for shard in shards}
    return [
        shard
        for shard in listed.values()
        if shard.id not in finished and all(parent in finished or parent not in listed for parent in shard.parents)
    ]
