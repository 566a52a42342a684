"""At rest: every change of the source is in `history`, or a dead letter, or its loss was said."""

import json

from tests.simulation.checkers.base import Checker, landed_identity
from tests.simulation.healing import letters_left
from tests.simulation.model import Identity, Scanned, identity_of


class NothingLost(Checker):
    promise = "1: nothing is lost"

    def at_rest(self) -> None:
        held = {identity_of(n, c.seq) for n, t in self.world.lake.tables.items() for c in t.history}
        for identity in self.model.expected:
            if identity not in held and identity not in self.model.expired and not self.was_let_go(identity):
                self.broken(f"{identity} is not in history, and nobody said so; it {self._last_seen(identity)}")
        letters = {int(json.loads(body)["record"]["dynamodb"]["SequenceNumber"]) for body in letters_left(self.world)}
        for identity in self.model.unreadable - self.model.expired:
            if identity[2] not in letters:
                self.broken(f"{identity} could be no envelope, and is no dead letter")
        for scanned in self.model.scanned:
            if not self.world.losses_ms and not self._is_held(scanned) and self._has_landed(scanned):
                self.broken(f"{scanned.table} {scanned.key} was scanned and sent, and is not in history")

    def _is_held(self, scanned: Scanned) -> bool:
        return (scanned.key, f"{scanned.generation}-{'0' * 40}") in self.world.lake.tables[scanned.table].known

    def _has_landed(self, scanned: Scanned) -> bool:
        identity = (scanned.table, scanned.generation, 0)
        return any(
            landed.acknowledged and landed.key == scanned.key and landed_identity(landed.data) == identity
            for landed in self.world.kinesis.landed
        )

    def _last_seen(self, identity: Identity) -> str:
        if identity not in self.model.done:
            return "was carried to its end by no mapping"
        has_landed = any(landed_identity(landed.data) == identity for landed in self.world.kinesis.landed)
        return "had arrived in Kinesis" if has_landed else "never arrived in Kinesis"
