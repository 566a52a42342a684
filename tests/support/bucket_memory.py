"""An S3 bucket held in memory, as boto3 shows it: pages, StartAfter, times by the whole second."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice, takewhile
from typing import Any

from botocore.exceptions import ClientError

PAGE = 100
"""Objects a page; fewer than S3 gives, so that paging is met."""


class BucketInMemory:
    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, int]] = {}
        self._names: list[str] = []
        self.listings: list[dict[str, str]] = []
        """What each page was asked for."""

    def put(self, name: str, body: bytes, at_ms: int) -> None:
        if name not in self.objects:
            insort(self._names, name)
        self.objects[name] = (body, at_ms // 1000 * 1000)

    def remove(self, name: str) -> None:
        del self.objects[name]
        self._names.remove(name)

    def get_paginator(self, _: str) -> "BucketInMemory":
        return self

    def paginate(self, **wanted: str) -> Iterator[dict[str, Any]]:
        names = self._below(wanted["Prefix"], wanted.get("StartAfter", ""))
        if wanted.get("Delimiter"):
            self.listings.append(wanted)
            yield self._level(names, wanted["Prefix"])
            return
        for start in range(0, max(1, len(names)), PAGE):
            self.listings.append(wanted)
            yield {"Contents": [self._entry(name) for name in names[start : start + PAGE]]}

    def get_object(self, *, Bucket: str, Key: str, **_: str) -> dict[str, Any]:  # noqa: N803 - AWS's names
        if Key not in self.objects:
            raise ClientError({"Error": {"Code": "NoSuchKey", "Message": Key}}, "GetObject")
        body, at_ms = self.objects[Key]
        return {"Body": _Body(body), "LastModified": datetime.fromtimestamp(at_ms / 1000, UTC)}

    def _below(self, prefix: str, after: str) -> list[str]:
        start = bisect_right(self._names, after) if after else bisect_left(self._names, prefix)
        return list(takewhile(lambda name: name.startswith(prefix), islice(self._names, start, None)))

    def _level(self, names: list[str], prefix: str) -> dict[str, Any]:
        rests = {name: name.removeprefix(prefix) for name in names}
        folders = {f"{prefix}{rest.partition('/')[0]}/" for rest in rests.values() if "/" in rest}
        return {
            "CommonPrefixes": [{"Prefix": folder} for folder in sorted(folders)],
            "Contents": [self._entry(name) for name, rest in rests.items() if "/" not in rest],
        }

    def _entry(self, name: str) -> dict[str, Any]:
        body, at_ms = self.objects[name]
        return {
            "Key": name,
            "ETag": str(hash(body)),
            "Size": len(body),
            "LastModified": datetime.fromtimestamp(at_ms / 1000, UTC),
        }


class _Body:
    def __init__(self, body: bytes) -> None:
        self._body = body

    def read(self) -> bytes:
        return self._body
