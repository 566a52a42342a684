"""Up to where the job's position stands, every record of Kinesis was brought to the tables, or its loss was said."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from tests.simulation.checkers.base import Checker
from tests.simulation.observations import Committed, LossAccepted, Observation, Sunk
from tests.simulation.world import World


class NothingSkipped(Checker):
    promise = "1: what can no longer be read stops the job, it is never skipped"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._brought: set[tuple[str, str]] = set()
        self._accepted_ms = 0
        self._checked: defaultdict[str, int] = defaultdict(int)
        """Of each shard, how many of its records were found brought."""
        self._last: Mapping[str, Mapping[str, Any]] | None = None
        """Positions of the last commit; None where the query is a new one."""

    def see(self, observation: Observation) -> None:
        match observation:
            case Sunk(records):
                self._brought |= set(records)
            case LossAccepted(horizon_ms):
                self._accepted_ms, self._last = horizon_ms, None
            case Committed(offset, horizon_ms):
                positions = offset["streams"][self.world.kinesis.stream]["shards"]
                for shard, position in positions.items():
                    if self._begins(shard):
                        self.world.begun_ms[shard] = horizon_ms
                    self._check(shard, position)
                self._last = positions

    def _begins(self, shard: str) -> bool:
        """A new query asks for all there is: what was trimmed before it first read the shard was not asked for."""
        if self._last is None:
            return True
        return self._last.get(shard) == {"seen_ms": 0, "trim_horizon": True}

    def _check(self, shard: str, position: Mapping[str, Any]) -> None:
        kept = self.world.kinesis.shards[shard].records
        reached = int(position.get("after") or position.get("closed") or 0)
        gone_ms = max(self._accepted_ms, self.world.begun_ms.get(shard, 0))
        at = self._checked[shard]
        while at < len(kept) and (kept[at].sequence <= reached or "closed" in position):
            record = kept[at]
            if (shard, str(record.sequence)) not in self._brought and record.arrival_ms >= gone_ms:
                self.broken(f"the job stands at {position} of {shard} and has not brought {record.sequence}")
            at += 1
        self._checked[shard] = at
