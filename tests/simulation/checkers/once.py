"""`history` holds each change once, however often it was delivered."""

from collections import Counter

from tests.simulation.checkers.base import Checker
from tests.simulation.observations import Observation, Remembered
from tests.simulation.world import World


class Once(Checker):
    promise = "3: once"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._seen: set[tuple[str, str, str]] = set()

    def see(self, observation: Observation) -> None:
        if isinstance(observation, Remembered):
            change = observation.change
            identity = (change.table, change.key, change.seq)
            if identity in self._seen:
                self.broken(f"history holds {identity} twice")
            self._seen.add(identity)

    def at_rest(self) -> None:
        for name, table in self.world.lake.tables.items():
            counts = Counter((change.key, change.seq) for change in table.history)
            if twice := [identity for identity, count in counts.items() if count > 1]:
                self.broken(f"{name}: history holds {twice[0]} twice")
