"""At rest: every change of the source is in `history`, or a dead letter, or its loss was said."""

import json

from tests.simulation.checkers.base import Checker
from tests.simulation.checkers.what_is_answered import landed_identity
from tests.simulation.healing import letters_left
from tests.simulation.model import Identity, identity_of
from tests.simulation.observations import Archived, Landed, LossAccepted, Observation
from tests.simulation.world import World


class NothingLost(Checker):
    promise = "1: nothing is lost"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._accepted_ms = 0
        self._arrived: dict[Identity, tuple[str, int]] = {}
        """In which shard, and when, Kinesis last took a record of the change."""
        self._archived: set[Identity] = set()

    def see(self, observation: Observation) -> None:
        match observation:
            case Landed(data=data, shard=shard, arrived_ms=arrived_ms):
                self._arrived[landed_identity(data)] = shard, arrived_ms
            case LossAccepted(horizon_ms):
                self._accepted_ms = horizon_ms
            case Archived(lines):
                self._archived |= {landed_identity(line) for line in lines.splitlines()}

    def at_rest(self) -> None:
        held = {identity_of(n, c.seq) for n, t in self.world.lake.tables.items() for c in t.history}
        for identity in self.model.expected:
            if identity in held or identity in self.model.expired:
                continue
            if identity not in self._archived and self._is_known_gone(identity):
                continue
            self.broken(f"{identity} is not in history, and nobody said so; it {self._last_seen(identity)}")
        letters = {int(json.loads(body)["record"]["dynamodb"]["SequenceNumber"]) for body in letters_left(self.world)}
        for identity in self.model.unreadable - self.model.expired:
            if identity[2] not in letters:
                self.broken(f"{identity} could be no envelope, and is no dead letter")
        self._snapshots()

    def _is_known_gone(self, identity: Identity) -> bool:
        """Trimmed before the query began, or before a person let it go on without."""
        if identity not in self._arrived:
            return False
        shard, arrived_ms = self._arrived[identity]
        return arrived_ms < max(self._accepted_ms, self.world.begun_ms.get(shard, 0))

    def _snapshots(self) -> None:
        """What a snapshot sent and Kinesis acknowledged."""
        for name, table in self.world.lake.tables.items():
            for scanned in self.model.scanned:
                identity = (name, scanned.generation, 0)
                if scanned.table == name and identity in self._arrived and not self._accepted_ms:
                    seq = f"{scanned.generation}-{'0' * 40}"
                    if (scanned.key, seq) not in table.known and self._has_landed(scanned.key, identity):
                        self.broken(f"{name} {scanned.key} was scanned, and is not in history")

    def _has_landed(self, key: str, identity: Identity) -> bool:
        return any(
            landed.acknowledged and landed.key == key and landed_identity(landed.data) == identity
            for landed in self.world.kinesis.landed
        )

    def _last_seen(self, identity: Identity) -> str:
        if identity not in self.model.done:
            return "was carried to its end by no mapping"
        return "had arrived in Kinesis" if identity in self._arrived else "never arrived in Kinesis"
