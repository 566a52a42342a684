"""Up to where the job's position stands, every record of Kinesis was brought to the tables, or its loss was said."""

from collections import defaultdict

from tests.simulation.checkers.base import Checker
from tests.simulation.observations import Committed, Landed, LossAccepted, Observation, Sunk
from tests.simulation.world import World


class NothingSkipped(Checker):
    promise = "1: what can no longer be read stops the job, it is never skipped"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._brought: set[tuple[str, str]] = set()
        self._accepted_ms = 0
        self._checked: defaultdict[str, int] = defaultdict(int)
        """Of each shard, how many of its records were found brought."""

    def see(self, observation: Observation) -> None:
        match observation:
            case Sunk(records):
                self._brought |= set(records)
            case LossAccepted(horizon_ms):
                self._accepted_ms = horizon_ms
            case Committed(offset):
                for stream in offset.get("streams", {}).values():
                    for shard, position in stream["shards"].items():
                        self._check(shard, position)
            case Landed():
                pass

    def _check(self, shard: str, position: dict[str, object]) -> None:
        if shard not in self.world.kinesis.shards:
            return
        records = self.world.kinesis.shards[shard].records
        if "after" in position:
            reached = int(str(position["after"]))
        elif "closed" in position:
            reached = records[-1].sequence if records else 0
        else:
            return
        at = self._checked[shard]
        while at < len(records) and records[at].sequence <= reached:
            record = records[at]
            is_gone = record.arrival_ms < self._accepted_ms
            if (shard, str(record.sequence)) not in self._brought and not is_gone:
                self.broken(f"the job stands at {reached} of {shard} and has not brought {record.sequence}")
            at += 1
        self._checked[shard] = at
