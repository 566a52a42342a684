"""A source table that changes while it is read, and a lake that keeps of each key the newest: a first load's models."""

import gzip
import io
import json
import random
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from bucket_memory import BucketInMemory

from bridge_lambda.envelope import encode_change
from bridge_lambda.masks import Mask
from bridge_lambda.rules import TableRules

TABLE = "things"
LABEL = "2026-11-01T12:00:00.000"
GENERATION = "20261101120000000"
ARN = f"arn:aws:dynamodb:us-east-1:000000000000:table/{TABLE}/stream/{LABEL}"
RULES = TableRules(TABLE, "1", ("id",), Mask(), None, keep_old_image=True, filter=None, origin=None)
Item = dict[str, Any]


class Store(BucketInMemory):
    """The bucket that snapshot and intake write to."""

    def put_object(self, *, Bucket: str, Key: str, Body: bytes, **_: str) -> None:  # noqa: N803 - AWS's names
        self.put(Key, Body, 0)

    def delete_object(self, *, Bucket: str, Key: str) -> None:  # noqa: N803
        if Key in self.objects:
            self.remove(Key)

    def get_object(self, *, Bucket: str, Key: str, **more: str) -> dict[str, Any]:  # noqa: N803
        answer = super().get_object(Bucket=Bucket, Key=Key, **more)
        body = answer["Body"].read()
        return answer | {"Body": io.BytesIO(body), "ETag": str(hash(body))}

    def lines(self, prefix: str) -> Iterator[dict[str, Any]]:
        for name in sorted(self.objects):
            if name.startswith(prefix) and name.endswith(".gz"):
                for line in gzip.decompress(self.objects[name][0]).splitlines():
                    yield json.loads(line)


def item(key: str, value: int) -> Item:
    return {"id": {"S": key}, "value": {"N": str(value)}}


@dataclass
class ChangingTable:
    """A few items a page; after each page that was read, so many writes, deletes and re-inserts happen."""

    random: random.Random
    items: dict[str, Item]
    changes_a_page: int = 0
    page: int = 5
    stream: list[dict[str, Any]] = field(default_factory=list)
    """Envelopes of every change, as the bridge sends them."""
    pages_left: int | None = None
    """Reading fails after so many."""
    _sequence: int = 10**20
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def scan(self, **request: Any) -> dict[str, Any]:
        """Segments are read by threads of their own."""
        with self._lock:
            return self._page_of(request)

    def _page_of(self, request: dict[str, Any]) -> dict[str, Any]:
        if self.pages_left is not None:
            self.pages_left -= 1
            if self.pages_left < 0:
                raise ConnectionAbortedError
        after = request.get("ExclusiveStartKey", {"id": {"S": ""}})["id"]["S"]
        mine = sorted(key for key in self.items if hash_of(key) % request["TotalSegments"] == request["Segment"])
        behind = [key for key in mine if key > after]
        found = behind[: self.page]
        answer: dict[str, Any] = {
            "Items": [self.items[key] for key in found], "ConsumedCapacity": {"CapacityUnits": 1.0}
        }  # fmt: skip
        if len(behind) > self.page:
            answer["LastEvaluatedKey"] = {"id": {"S": found[-1]}}
        for _ in range(self.changes_a_page):
            self.change()
        return answer

    def change(self) -> None:
        """A write, a delete, or both of one key right after another."""
        key = f"k{self.random.randrange(len(self.items) + 20):05d}"
        match self.random.choice(["put", "delete", "again"]):
            case "put":
                self.put(key)
            case "delete":
                self.delete(key)
            case _:
                self.delete(key)
                self.put(key)

    def put(self, key: str) -> None:
        old = self.items.get(key)
        self.items[key] = item(key, self._sequence)
        self._record("MODIFY" if old else "INSERT", key, self.items[key], old)

    def delete(self, key: str) -> None:
        old = self.items.pop(key, None)
        if old is not None:
            self._record("REMOVE", key, None, old)

    def _record(self, operation: str, key: str, new: Item | None, old: Item | None) -> None:
        self._sequence += self.random.randrange(1, 10**6)
        images = {name: image for name, image in (("NewImage", new), ("OldImage", old)) if image is not None}
        record = {
            "eventID": str(self._sequence),
            "eventName": operation,
            "eventSourceARN": ARN,
            "dynamodb": {"Keys": {"id": {"S": key}}, "SequenceNumber": str(self._sequence), **images},
        }
        change = encode_change(record, {TABLE: RULES}, 0, "bucket")
        assert change is not None
        self.stream.append(json.loads(change.line(0)))


def hash_of(key: str) -> int:
    return sum(key.encode())


class NewestOfEach:
    """What `current` promises, in ten lines."""

    def __init__(self) -> None:
        self._rows: dict[str, tuple[str, Mapping[str, Any] | None]] = {}

    def take(self, envelope: Mapping[str, Any]) -> None:
        key, seq = json.dumps(envelope["key"]), f"{envelope['gen']}-{envelope['seq']}"
        if key not in self._rows or seq > self._rows[key][0]:
            self._rows[key] = (seq, envelope["new"])

    def live(self) -> dict[str, Any]:
        return {str(new["id"]): new["value"] for _, new in self._rows.values() if new is not None}
