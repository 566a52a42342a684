"""A DynamoDB table with its streams: shards that roll, records that are trimmed, a stream made anew."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Any, Final
from zlib import crc32

from infra.local.lineage import Shard
from infra.local.mapping.event import Change, encode
from infra.local.mapping.stream import ExpiredError, Page, TrimmedError
from tests.simulation.clock import DAY_MS, HandClock
from tests.simulation.items import item
from tests.simulation.model import Fact, Identity, Model
from tests.simulation.rules import Image, Rules

_TTL: Final = {"Type": "Service", "PrincipalId": "dynamodb.amazonaws.com"}


@dataclass
class StreamRecord:
    sequence: int
    created_ms: int
    change: Change
    identity: Identity


@dataclass
class StreamShard:
    parents: tuple[str, ...]
    slot: int
    records: list[StreamRecord] = field(default_factory=list)
    closed_ms: int | None = None


class TableStream:
    """One stream of the table, from when it was enabled; implements what a mapping reads."""

    def __init__(self, table: str, clock: HandClock, *, first_sequence: int, slots: int, page: int) -> None:
        self.table = table
        self._clock = clock
        self._sequence = first_sequence
        self._slots = slots
        self._page = page
        made = datetime.fromtimestamp(clock.ms / 1000, UTC)
        label = made.strftime("%Y-%m-%dT%H:%M:%S.") + f"{clock.ms % 1000:03d}"
        self.arn = f"arn:aws:dynamodb:us-east-1:123456789012:table/{table}/stream/{label}"
        self.generation = made.strftime("%Y%m%d%H%M%S") + f"{clock.ms % 1000:03d}"
        self.shards_by_name: dict[str, StreamShard] = {}
        for slot in range(slots):
            self._open((), slot)
        self.iterators_expire = 0

    def append(self, record: dict[str, Any], identity: Identity, item_hash: int) -> None:
        shard = next(
            s for s in self.shards_by_name.values() if s.closed_ms is None and s.slot == item_hash % self._slots
        )
        change = encode(record, stream_arn=self.arn)
        shard.records.append(StreamRecord(identity[2], self._clock.ms, change, identity))

    def next_sequence(self, rng: Random) -> int:
        self._sequence += rng.randrange(1, 4)
        return self._sequence

    def roll(self) -> None:
        """Every few hours DynamoDB closes a shard and goes on in a child."""
        for name, shard in list(self.shards_by_name.items()):
            if shard.closed_ms is None:
                shard.closed_ms = self._clock.ms
                self._open((name,), shard.slot)

    def _open(self, parents: tuple[str, ...], slot: int) -> None:
        self.shards_by_name[f"shardId-{self.generation}-{len(self.shards_by_name):04d}"] = StreamShard(parents, slot)

    # --- as a mapping reads it ----------------------------------------------------------------------------------------

    def shards(self) -> list[Shard]:
        horizon_ms = self._clock.ms - DAY_MS
        return [
            Shard(name, shard.parents, closed=shard.closed_ms is not None)
            for name, shard in self.shards_by_name.items()
            if shard.closed_ms is None or shard.closed_ms >= horizon_ms
        ]

    def iterator(self, shard: str, *, after: str | None, start: str) -> str:
        assert start == "TRIM_HORIZON"
        if after is not None and any(r.sequence == int(after) for r in self._trimmed(shard)):
            raise TrimmedError(shard)
        return f"{shard}|{after or '0'}"

    def page(self, iterator: str) -> Page:
        if self.iterators_expire:
            self.iterators_expire -= 1
            raise ExpiredError(iterator)
        name, after = iterator.split("|")
        shard = self.shards_by_name[name]
        left = [record for record in self._kept(name) if record.sequence > int(after)]
        found = left[: self._page]
        ended = shard.closed_ms is not None and len(found) == len(left)
        last = str(found[-1].sequence) if found else after
        return Page(tuple(record.change for record in found), None if ended else f"{name}|{last}")

    def _kept(self, name: str) -> list[StreamRecord]:
        horizon_ms = self._clock.ms - DAY_MS
        return [record for record in self.shards_by_name[name].records if record.created_ms >= horizon_ms]

    def _trimmed(self, name: str) -> list[StreamRecord]:
        horizon_ms = self._clock.ms - DAY_MS
        return [record for record in self.shards_by_name[name].records if record.created_ms < horizon_ms]

    def gone(self, shards: Iterable[str]) -> set[Identity]:
        return {record.identity for shard in shards for record in self._trimmed(shard)}


class SourceTable:
    """The table itself: what its users do to it, and the stream that tells of it."""

    def __init__(self, rules: Rules, clock: HandClock, model: Model, rng: Random) -> None:
        self.name = rules.table
        self.rules = rules
        self.items: dict[str, Image] = {}
        self._clock = clock
        self._model = model
        self._version = 0
        self._rng = rng
        self.streams: list[TableStream] = []
        self.open_stream()

    @property
    def stream(self) -> TableStream:
        return self.streams[-1]

    def open_stream(self) -> TableStream:
        """A stream made anew numbers its changes from anywhere, lower than before included."""
        digits = self._rng.choice((21, 25, 30, 39))
        first = 10**digits - self._rng.randrange(1, 40)
        slots = self._rng.choice((1, 1, 2))
        self._clock.sleep_ms(1)
        page = self._rng.choice((3, 10, 1000))
        self.streams.append(TableStream(self.name, self._clock, first_sequence=first, slots=slots, page=page))
        return self.stream

    def key(self, number: int) -> Image:
        key: Image = {"id": {"S": f"k{number}"}}
        return key | {"sort": {"N": str(number % 2)}} if "sort" in self.rules.key else key

    def seed(self, number: int) -> None:
        """An item from before there was a stream: only a snapshot can bring it."""
        key = self.key(number)
        self.items[self._text(key)] = self._item(key, self._rng)

    def put(self, number: int, rng: Random, *, oversize: bool = False, readable: bool = True) -> None:
        key = self.key(number)
        image = self._item(key, rng, oversize=oversize)
        if not readable:
            image["odd"] = {"X": "no type of DynamoDB's"}
        self._change(key, image, rng, readable=readable)

    def delete(self, number: int, rng: Random, *, by_ttl: bool = False) -> None:
        key = self.key(number)
        if self._text(key) in self.items:
            self._change(key, None, rng, by_ttl=by_ttl)

    def _item(self, key: Image, rng: Random, *, oversize: bool = False) -> Image:
        self._version += 1
        return item(rng, key, version=self._version, now_ms=self._clock.ms, oversize=oversize)

    def _change(
        self, key: Image, new: Image | None, rng: Random, *, by_ttl: bool = False, readable: bool = True
    ) -> None:
        text = self._text(key)
        old = self.items.get(text)
        op = "REMOVE" if new is None else "INSERT" if old is None else "MODIFY"
        sequence, created_s = self.stream.next_sequence(rng), self._clock.ms // 1000
        fact = Fact(self.name, self.stream.generation, sequence, text, op, new, old, by_ttl, created_s * 1000)
        self._model.changed(fact, readable=readable)
        record: dict[str, Any] = {
            "eventID": f"{self.name}-{sequence}",
            "eventName": op,
            "eventVersion": "1.1",
            "eventSource": "aws:dynamodb",
            "awsRegion": "us-east-1",
            "dynamodb": {
                "ApproximateCreationDateTime": created_s,
                "Keys": key,
                "SequenceNumber": str(sequence),
                "StreamViewType": "NEW_AND_OLD_IMAGES",
                **({"NewImage": new} if new is not None else {}),
                **({"OldImage": old} if old is not None else {}),
            },
            **({"userIdentity": _TTL} if by_ttl else {}),
        }
        self.stream.append(record, fact.identity, crc32(text.encode()))
        if new is None:
            del self.items[text]
        elif readable:
            self.items[text] = new
        # What is unreadable is not kept as an old image either: one bad write, one poisoned change.

    def _text(self, key: Image) -> str:
        """The key as the lake has it: plain JSON, names sorted."""
        plain = {name: typed["S"] if "S" in typed else int(typed["N"]) for name, typed in key.items()}
        return json.dumps(plain, sort_keys=True, separators=(",", ":"))
