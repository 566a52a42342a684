"""The delivery's positions, and the delivery it was about to make: so that a kill neither loses nor doubles."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infra.local.lineage import Shard
from infra.local.positions import Document


class Positions:
    """Two writes a delivery: what will be put where, then that it is there.

    A kill between them leaves a plan. The next start reads exactly the planned records again and puts them under the
    planned names: the same lines in the same objects, whether or not the first put had arrived.
    """

    def __init__(self, folder: Path, stream: str) -> None:
        self._document = Document(folder / f"positions-{stream}.json")
        self._state = self._document.load() or {}

    def belongs_to(self, created: str) -> bool:
        """Whether the positions are of this stream, and not of an older one of the same name."""
        return bool(self._state.get("created", created) == created)

    def begin(self, created: str, shards: Sequence[Shard], start: str) -> None:
        """LATEST concerns the shards there are now: the closed ones are over, and children are read whole."""
        places: dict[str, dict[str, Any]] = {}
        if start == "LATEST":
            places = {shard.id: {"finished": True} if shard.closed else {"start": "LATEST"} for shard in shards}
        self._state = {"created": created, "shards": places, "plan": None}
        self._document.save(self._state)

    @property
    def is_new(self) -> bool:
        return "created" not in self._state

    def after(self, shard: str) -> str | None:
        after = self._shard(shard).get("after")
        return None if after is None else str(after)

    def start(self, shard: str) -> str | None:
        start = self._shard(shard).get("start")
        return None if start is None else str(start)

    @property
    def finished(self) -> set[str]:
        return {shard for shard, place in self._state["shards"].items() if place.get("finished")}

    @property
    def plan(self) -> dict[str, Any] | None:
        plan: dict[str, Any] | None = self._state["plan"]
        return plan

    def intend(self, plan: dict[str, Any]) -> None:
        self._state["plan"] = plan
        self._document.save(self._state)

    def commit(self, until: dict[str, str]) -> None:
        for shard, sequence in until.items():
            self._shard(shard)["after"] = sequence
        self._state["plan"] = None
        self._document.save(self._state)

    def finish(self, shard: str) -> None:
        self._shard(shard)["finished"] = True
        self._document.save(self._state)

    def _shard(self, shard: str) -> dict[str, Any]:
        place: dict[str, Any] = self._state["shards"].setdefault(shard, {})
        return place
