"""Order: a mapping brings a key's changes in their order, and of what one invocation sent a key's newest lies last."""

import json
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from tests.simulation.checkers.base import Checker, landed_identity
from tests.simulation.observations import Answered, Delivered, Observation
from tests.simulation.world import World


class OrderKept(Checker):
    promise = "2: the order of a key's changes is kept on the way"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._reached: defaultdict[tuple[int, str, str, str], int] = defaultdict(int)
        """How many of a key's changes each mapping has brought."""

    def see(self, observation: Observation) -> None:
        if isinstance(observation, Delivered):
            self._delivered(observation)
        elif isinstance(observation, Answered):
            self._answered(observation)

    def _delivered(self, seen: Delivered) -> None:
        """A change comes for the first time only when all earlier ones of its key have come, or are gone."""
        table, generation, sequence = seen.change
        life = (table, generation, self.model.keys[seen.change])
        place = (seen.mapping, *life)
        order = self.model.lives[life]
        at = order.index(sequence)
        skipped = [s for s in order[self._reached[place] : at] if (table, generation, s) not in self.model.trimmed]
        if skipped:
            self.broken(f"mapping {seen.mapping} brought {seen.change} before {skipped[0]}, which is older")
        self._reached[place] = max(self._reached[place], at + 1)

    def _answered(self, seen: Answered) -> None:
        """A key of which something comes again is not done yet: its newest is still to be sent."""
        coming_again = seen.records[seen.unsent :] if seen.unsent is not None else ()
        open_keys = {self._key(record) for record in coming_again}
        done = {int(r["dynamodb"]["SequenceNumber"]) for r in seen.records if self._key(r) not in open_keys}
        newest: dict[str, tuple[int, int]] = {}
        last: dict[str, tuple[int, int]] = {}
        for landed in seen.landed:
            _, _, sequence = landed_identity(landed.data)
            if landed.acknowledged and sequence in done:
                place = (landed.sequence, sequence)
                last[landed.key] = max(last.get(landed.key, place), place)
                newest[landed.key] = max(newest.get(landed.key, place), place, key=lambda pair: pair[1])
        for key, (_, sequence) in newest.items():
            if last[key][1] != sequence:
                self.broken(f"of {key} an older change, {last[key][1]}, lies after {sequence} in Kinesis")

    def _key(self, record: Mapping[str, Any]) -> str:
        return json.dumps(record["dynamodb"]["Keys"], sort_keys=True)
