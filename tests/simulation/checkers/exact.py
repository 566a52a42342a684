"""What a row of `history` says is what the source's change said: every digit, every byte, every flag."""

from typing import Any

from tests.simulation import meaning
from tests.simulation.checkers.base import Checker
from tests.simulation.decoder import Change
from tests.simulation.model import identity_of, matches
from tests.simulation.observations import Observation, Remembered
from tests.simulation.world import World


class Exact(Checker):
    promise = "4: exact"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._hashes: dict[Any, str] = {}

    def see(self, observation: Observation) -> None:
        if isinstance(observation, Remembered):
            if observation.change.op == "SNAPSHOT":
                self._scanned(observation.change)
            else:
                self._changed(observation.change)

    def _changed(self, change: Change) -> None:
        expected = self.model.expected.get(identity_of(change.table, change.seq))
        if expected is None:
            self.broken(f"{change.seq} is no change that may be in the lake")
        said = (change.key, change.op, change.ttl, change.filtered, change.created_ms)
        wanted = (expected.fact.key, expected.op, expected.ttl, expected.filtered, expected.fact.created_ms)
        if said != wanted:
            self.broken(f"{change.seq}: the lake says {said}, the source {wanted}")
        for root, image, original in (("/new", change.new, expected.new), ("/old", change.old, expected.old)):
            if not self._is(image, change, root, original):
                self.broken(f"{change.seq}: {root} is not what the source had")

    def _scanned(self, change: Change) -> None:
        scanned = [
            s.item
            for s in self.model.scanned
            if (s.table, s.generation, s.key) == (change.table, change.seq.split("-")[0], change.key)
        ]
        if not any(self._is(change.new, change, "/new", item) for item in scanned):
            self.broken(f"a snapshot's row of {change.key} is not what was scanned")

    def _is(self, image: Any, change: Change, root: str, original: Any) -> bool:
        if image is None or original is None:
            return image is original
        return matches(original, meaning.of_plain(image, change.types, root), self._hashes)
