"""Nothing lost, nothing stale, nothing twice: the table's own stream against history, current and archive.

It reads the stream itself and shares no code with the path it judges; beside it stands `lakestream verify`, by digest.
"""

import gzip
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Final, TypeVar

from tests.support.whole_stack import TABLE, Command, WholeStack, key_text

Change = tuple[str, int]
"""A key and a sequence number."""
_SETTLE_S: Final = 180.0

_Seen = TypeVar("_Seen")


@dataclass(frozen=True, kw_only=True)
class Proof:
    """Counts; every one but the first must be 0."""

    changes: int
    lost: int
    """Of history: in the stream and not there."""
    invented: int
    twice: int
    stale: int
    """Keys whose row in `current` is not of their newest change, or has none."""
    not_archived: int
    rejects: int
    verify_differences: int
    """What `lakestream verify` finds missing, extra, stale, different or unproven."""

    @property
    def holds(self) -> bool:
        return not any(count for name, count in asdict(self).items() if name != "changes")


@dataclass(frozen=True, kw_only=True)
class Tables:
    """`history` and `current` against the table's own stream."""

    changes: frozenset[Change] = field(repr=False)
    lost: int
    invented: int
    twice: int
    stale: int

    @property
    def hold(self) -> bool:
        return self.lost == self.invented == self.twice == self.stale == 0


def compare(stack: WholeStack, settle_s: float = _SETTLE_S) -> Tables:
    """When nothing is written any more, and what was had its time to arrive, in both: neither waits for the other."""
    changes = frozenset(stream_changes(stack))
    return _settled(lambda: _compared(stack, changes), lambda tables: tables.lost + tables.stale, settle_s)


def _compared(stack: WholeStack, changes: frozenset[Change]) -> Tables:
    history = Counter(_changes_in(stack, "history"))
    current = dict(_changes_in(stack, "current"))
    newest: dict[str, int] = {}
    for key, seq in changes:
        newest[key] = max(seq, newest.get(key, 0))
    return Tables(
        changes=changes,
        lost=len(changes - history.keys()),
        invented=len(history.keys() - changes),
        twice=sum(count - 1 for count in history.values()),
        stale=sum(current.get(key) != seq for key, seq in newest.items()) + len(current.keys() - newest.keys()),
    )


def prove(stack: WholeStack) -> Proof:
    """The tables, the archive, and what `lakestream verify` says."""
    tables = compare(stack)
    archive = Archive(stack)
    not_archived = _settled(lambda: len(tables.changes - archive.changes()), int, _SETTLE_S)
    return Proof(
        changes=len(tables.changes),
        lost=tables.lost,
        invented=tables.invented,
        twice=tables.twice,
        stale=tables.stale,
        not_archived=not_archived,
        rejects=len(stack.select("rejects", "SELECT 1 AS one FROM t")),
        verify_differences=_verified(stack),
    )


def stream_changes(stack: WholeStack) -> Iterator[Change]:
    """Each change of the table since it was made."""
    streams = stack.clients("dynamodbstreams")
    arn = stack.clients("dynamodb").describe_table(TableName=TABLE)["Table"]["LatestStreamArn"]
    for shard in streams.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"]:
        place = {"StreamArn": arn, "ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
        iterator = streams.get_shard_iterator(**place)["ShardIterator"]
        while records := (answer := streams.get_records(ShardIterator=iterator))["Records"]:
            for record in records:
                said = record["dynamodb"]
                yield key_text(said["Keys"]["event_id"]["S"]), int(said["SequenceNumber"])
            iterator = answer["NextShardIterator"]


class Archive:
    """The changes in its objects, each of which is read once."""

    def __init__(self, stack: WholeStack) -> None:
        self._s3, self._bucket = stack.clients("s3"), stack.facts["bucket"]
        self._prefix = stack.facts["archive_prefix"]
        self._read: set[str] = set()
        self._changes: set[Change] = set()

    def changes(self) -> set[Change]:
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
        for name in {entry["Key"] for page in pages for entry in page.get("Contents", ())} - self._read:
            body = self._s3.get_object(Bucket=self._bucket, Key=name)["Body"].read()
            envelopes = map(json.loads, gzip.decompress(body).splitlines())
            self._changes |= {(key_text(said["key"]["event_id"]), int(said["seq"])) for said in envelopes}
            self._read.add(name)
        return self._changes


def _changes_in(stack: WholeStack, part: str) -> list[Change]:
    return [(row["_key"], _number(row["_seq"])) for row in stack.select(part, "SELECT _key, _seq FROM t")]


def _number(seq: str) -> int:
    return int(seq.rpartition("-")[2])


def _settled(look: Callable[[], _Seen], missing: Callable[[_Seen], int], settle_s: float) -> _Seen:
    """Once nothing is missing, or no more of it has come for long: what is missing then is lost."""
    seen, came_at = look(), time.monotonic()
    while missing(seen) and time.monotonic() - came_at < settle_s:
        time.sleep(0.5)
        before, seen = seen, look()
        if missing(seen) < missing(before):
            came_at = time.monotonic()
    return seen


def _verified(stack: WholeStack) -> int:
    done = Command("verify", "--json", "--config", stack.job_settings, "--record", stack.home.file("verify.json"))
    assert done.out, f"verify did not answer: {done.said}"
    report: dict[str, Any] = done.json[TABLE]
    return sum(report[name] for name in ("missing", "extra", "stale", "different", "unproven"))
