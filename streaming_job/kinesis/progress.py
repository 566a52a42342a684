"""How each shard's reading stands, in the one place of a Python source that Spark's progress shows.

Spark fills `sources[].latestOffset` of a query's progress from `reportLatestOffset`; a listener in the job reads it.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any

from streaming_job.kinesis.fetch import Counters
from streaming_job.kinesis.prefetch import Prefetcher


@dataclass(frozen=True)
class ShardProgress:
    stream: str
    shard: str
    behind_ms: int
    """Kinesis' `MillisBehindLatest` of the last answer."""
    records: int
    bytes: int
    throttles: int
    retries: int
    expired_iterators: int
    losses: int


def progress_of(prefetcher: Prefetcher) -> dict[str, Any]:
    shards: dict[str, Any] = {}
    for ref, counters in sorted(prefetcher.counters.items()):
        shards.setdefault(ref.stream, {})[ref.shard] = asdict(counters)
    return {"buffered_bytes": prefetcher.held_bytes(), "shards": shards}


def shard_progress(latest_offset: object) -> list[ShardProgress]:
    """What `sources[].latestOffset` of a progress says, as text or parsed; nothing where another source wrote it."""
    value = json.loads(latest_offset) if isinstance(latest_offset, str) else latest_offset
    if not isinstance(value, dict) or not isinstance(value.get("shards"), dict):
        return []
    known = Counters.__dataclass_fields__.keys()
    return [
        ShardProgress(stream=stream, shard=shard, **{name: counters[name] for name in known})
        for stream, shards in sorted(value["shards"].items())
        for shard, counters in sorted(shards.items())
    ]
