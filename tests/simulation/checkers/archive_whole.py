"""The archive holds what Kinesis held: replay and rebuild rest on it."""

from tests.simulation.checkers.base import Checker
from tests.simulation.kinesis import STREAM
from tests.simulation.observations import Archived, Observation
from tests.simulation.world import World


class ArchiveWhole(Checker):
    promise = "1: the archive is whole"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._lines: set[bytes] = set()

    def see(self, observation: Observation) -> None:
        if isinstance(observation, Archived):
            self._lines |= set(observation.lines.splitlines(keepends=True))

    def at_rest(self) -> None:
        """Of what the stream still keeps; what was trimmed while the delivery was down is past checking here."""
        kinesis = self.world.kinesis
        for shard in kinesis.list_shards(STREAM):
            for record in kinesis.shards[shard.id].records:
                if record.arrival_ms >= kinesis.trimmed_before_ms() and record.data not in self._lines:
                    self.broken(f"{record.sequence} of {shard.id} is not in the archive")
