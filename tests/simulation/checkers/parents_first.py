"""A shard's children are read in a later batch than its last record: a key's order survives splits and merges."""

from collections import defaultdict

from tests.simulation.checkers.base import Checker
from tests.simulation.observations import Observation, Sunk
from tests.simulation.world import World


class ParentsFirst(Checker):
    promise = "2: a shard's children are read after it"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._brought: defaultdict[str, set[int]] = defaultdict(set)

    def see(self, observation: Observation) -> None:
        if isinstance(observation, Sunk):
            for shard in sorted({shard for shard, _ in observation.records}):
                self._check(shard)
            for shard, sequence in observation.records:
                self._brought[shard].add(int(sequence))

    def _check(self, shard: str) -> None:
        shards = self.world.kinesis.shards
        for parent in shards[shard].parents:
            gone_ms = max(self.let_go_ms(parent), self.world.kinesis.trimmed_before_ms())
            for record in shards[parent].records:
                if record.sequence not in self._brought[parent] and record.arrival_ms >= gone_ms:
                    self.broken(f"{shard} was read before {record.sequence} of {parent}, which it follows")
