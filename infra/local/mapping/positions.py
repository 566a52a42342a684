"""The mapping's positions: for each shard, the last change that is done, and whether all of it is read."""

import threading
from collections.abc import Collection
from pathlib import Path
from typing import Any

from infra.local.positions import Document


class Positions:
    """Written after a batch is done and before the next: a kill repeats a batch, it never skips one."""

    def __init__(self, folder: Path, stream_arn: str) -> None:
        # A stream made anew has a new label, and its sequence numbers mean nothing in the old one's terms.
        label = stream_arn.rpartition("/")[2].replace(":", "-")
        self._document = Document(folder / f"positions-{label}.json")
        self._lock = threading.Lock()
        self._shards: dict[str, dict[str, Any]] = (self._document.load() or {}).get("shards", {})

    @property
    def is_empty(self) -> bool:
        return not self._shards

    def after(self, shard: str) -> str | None:
        after = self._shards.get(shard, {}).get("after")
        return None if after is None else str(after)

    def start(self, shard: str) -> str | None:
        """Where a shard begins that has no position yet, as decided when it was first seen."""
        start = self._shards.get(shard, {}).get("start")
        return None if start is None else str(start)

    @property
    def finished(self) -> set[str]:
        with self._lock:
            return {shard for shard, place in self._shards.items() if place.get("finished")}

    def begin(self, shard: str, start: str) -> None:
        self._write(shard, {"start": start})

    def move(self, shard: str, after: str) -> None:
        self._write(shard, {"after": after})

    def forget(self, shard: str) -> None:
        """The position has left the stream: what is left of the shard is read from its trim horizon."""
        self._write(shard, {"start": "TRIM_HORIZON"})

    def finish(self, shard: str) -> None:
        self._write(shard, {"finished": True})

    def keep(self, listed: Collection[str]) -> None:
        """Shards the stream no longer lists have nothing left to remember."""
        with self._lock:
            if gone := self._shards.keys() - set(listed):
                for shard in gone:
                    del self._shards[shard]
                self._document.save({"shards": self._shards})

    def _write(self, shard: str, place: dict[str, Any]) -> None:
        with self._lock:
            self._shards[shard] = place
            self._document.save({"shards": self._shards})
