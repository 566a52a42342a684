"""Envelopes and collected changes as tests need them, built by hand: the bridge has no part in these."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from streaming_job.pipeline.changes import SCHEMA

GENERATION = "20261101120000000"
DAY_MS = 1_793_534_400_000
"""The first of November 2026, UTC."""


def change_seq(number: int, generation: str = GENERATION) -> str:
    return f"{generation}-{number:040d}"


def canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


@dataclass(frozen=True)
class Change:
    """One change of one item. `number` is its sequence number within the key."""

    key: Mapping[str, Any]
    number: int
    op: str = "MODIFY"
    new: Mapping[str, Any] | None = None
    old: Mapping[str, Any] | None = None
    table: str = "things"
    ttl: bool = False
    filtered: bool = False
    created_ms: int | None = DAY_MS
    types: Mapping[str, str] = field(default_factory=dict)
    ref: Mapping[str, Any] | None = None
    generation: str = GENERATION

    @property
    def key_text(self) -> str:
        return canonical(self.key)

    @property
    def seq(self) -> str:
        return change_seq(self.number, self.generation)

    @property
    def digest(self) -> str | None:
        return hashlib.sha256(canonical(self.new).encode()).hexdigest() if self.new is not None else None

    def envelope(self) -> dict[str, Any]:
        return {
            "v": 1, "rules": "1", "table": self.table, "op": self.op, "id": f"id-{self.number}",
            "gen": self.generation, "seq": f"{self.number:040d}", "key": dict(self.key),
            "new": self.new, "old": self.old,
            "types": dict(self.types), "digest": self.digest, "ttl": self.ttl, "filtered": self.filtered,
            "created_ms": self.created_ms, "origin_ms": None, "bridge_in_ms": DAY_MS + 10, "ref": self.ref,
            "bridge_out_ms": DAY_MS + 20,
        }  # fmt: skip

    def line(self) -> bytes:
        return canonical_line(self.envelope())


def canonical_line(envelope: Mapping[str, Any]) -> bytes:
    return canonical(envelope).encode() + b"\n"


def put(key: str, number: int, **item: Any) -> Change:
    """A change that writes an item under the key attribute `id`."""
    return Change({"id": key}, number, "MODIFY", new={"id": key, **item})


def remove(key: str, number: int, **more: Any) -> Change:
    return Change({"id": key}, number, "REMOVE", **more)


def collected(changes: Iterable[Change]) -> pa.Table:
    """As `changes.collect` gives them."""
    rows = [
        {
            "stream": "lakestream", "shard": "shardId-000000000000", "kinesis_seq": f"{position:056d}",
            "arrival_ms": DAY_MS + 30, "data": change.line() if change.ref is not None else None, "reject": None,
            "table": change.table, "op": change.op, "id": f"id-{change.number}", "change_seq": change.seq,
            "key": change.key_text,
            "new": canonical(change.new) if change.new is not None else None,
            "old": canonical(change.old) if change.old is not None else None,
            "types": canonical(change.types), "digest": change.digest, "rules": "1", "ttl": change.ttl,
            "filtered": change.filtered, "created_ms": change.created_ms, "origin_ms": None,
            "bridge_in_ms": DAY_MS + 10, "bridge_out_ms": DAY_MS + 20,
            "ref": canonical(change.ref) if change.ref is not None else None,
        }
        for position, change in enumerate(changes, start=1)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=SCHEMA)
