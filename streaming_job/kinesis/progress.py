"""How each shard's reading stands, in the one place of a Python source that Spark's progress shows.

Spark fills `sources[].latestOffset` of a query's progress from `reportLatestOffset`; a listener in the job reads it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from config.limits import KINESIS_RETENTION_H_MIN
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
    read_until_ms: int = 0
    """Nothing that arrived before then is unread; 0 where nobody knows."""
    retention_ms: int = KINESIS_RETENTION_H_MIN * 3_600_000
    """What the stream keeps; a source that does not say is taken for one that keeps the least there is."""


def progress_of(prefetcher: Prefetcher) -> dict[str, Any]:
    shards: dict[str, Any] = {}
    for ref, counters in sorted(prefetcher.counters.items()):
        kept = {"read_until_ms": prefetcher.read_until_ms(ref), "retention_ms": prefetcher.retention_ms(ref)}
        shards.setdefault(ref.stream, {})[ref.shard] = asdict(counters) | kept
    return {"buffered_bytes": prefetcher.held_bytes(), "shards": shards}


def shard_progress(latest_offset: object) -> list[ShardProgress]:
    """What `sources[].latestOffset` of a progress says, as text or parsed; nothing where another source wrote it."""
    value = json.loads(latest_offset) if isinstance(latest_offset, str) else latest_offset
    if not isinstance(value, dict) or not isinstance(value.get("shards"), dict):
        return []
    known = [name for name in ShardProgress.__dataclass_fields__ if name not in ("stream", "shard")]
    return [
        ShardProgress(stream=stream, shard=shard, **{name: counters[name] for name in known})
        for stream, shards in sorted(value["shards"].items())
        for shard, counters in sorted(shards.items())
    ]


def platform_progress(source: Mapping[str, Any], now_ms: int) -> list[ShardProgress]:
    """Databricks' source says in its metrics how far the furthest shard is behind, for all of them together."""
    said = (source.get("metrics") or {}).get("maxMsBehindLatest")
    if said is None:
        return []
    behind_ms = int(float(said))
    nothing = dict.fromkeys(Counters.__dataclass_fields__, 0)
    counters = nothing | {"behind_ms": behind_ms}
    return [ShardProgress(stream="stream", shard="furthest", **counters, read_until_ms=now_ms - behind_ms)]
