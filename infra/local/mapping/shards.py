"""All shards of the stream: each is read when its parents are, and its children after it."""

import threading

from infra.local import worker
from infra.local.lineage import Shard, readable
from infra.local.mapping.shard import Parts, ShardReader

_DISCOVER_EVERY_S = 5.0


class Mapping:
    """Reads every shard of the stream, a shard's children after the shard."""

    def __init__(self, parts: Parts, starting_position: str) -> None:
        self._parts = parts
        self._starting_position = starting_position
        self._readers: dict[str, ShardReader] = {}
        self._woken = threading.Event()

    def run(self) -> None:
        threading.Thread(target=self._wake_at_stop, daemon=True).start()
        try:
            while not self._parts.stop.is_set():
                self._woken.clear()
                self._collect()
                self._discover()
                self._woken.wait(_DISCOVER_EVERY_S)
        finally:
            self._parts.stop.set()
            for reader in self._readers.values():
                reader.stopped()
        self._collect()

    def _wake_at_stop(self) -> None:
        self._parts.stop.wait()
        self._woken.set()

    def _collect(self) -> None:
        """Shards read to their end make way for their children."""
        for shard, reader in tuple(self._readers.items()):
            if reader.failure is not None:
                raise reader.failure
            if reader.is_finished:
                self._parts.positions.finish(shard)
                del self._readers[shard]
                self._woken.set()

    def _discover(self) -> None:
        try:
            shards = self._parts.stream.shards()
        except worker.ServiceError as error:
            self._parts.metrics.read_failures.inc()
            self._parts.log.warning("discovery_failed", error=worker.one_line(error))
            return
        positions = self._parts.positions
        if positions.is_empty:
            self._first_sight(shards)
        positions.keep([shard.id for shard in shards] + list(self._readers))
        for shard in readable(shards, positions.finished):
            if shard.id not in self._readers:
                self._parts.log.info("shard_begun", shard=shard.id, after=positions.after(shard.id))
                reader = ShardReader(shard.id, self._parts, self._woken.set)
                self._readers[shard.id] = reader
                reader.begin()

    def _first_sight(self, shards: list[Shard]) -> None:
        """LATEST concerns the shards there are when the mapping is made; their children are read whole."""
        for shard in shards:
            if self._starting_position == "LATEST" and shard.closed:
                self._parts.positions.finish(shard.id)
            elif self._starting_position == "LATEST":
                self._parts.positions.begin(shard.id, "LATEST")
