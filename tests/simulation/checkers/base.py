"""What every checker is, and what several of them know."""

import json
from typing import ClassVar, NoReturn

from tests.simulation.errors import ViolationError
from tests.simulation.model import Identity
from tests.simulation.observations import Observation
from tests.simulation.world import World


class Checker:
    promise: ClassVar[str]

    def __init__(self, world: World) -> None:
        self.world = world
        self.model = world.model

    def see(self, observation: Observation) -> None:
        """One fact, as it happens."""

    def at_rest(self) -> None:
        """Every fault is mended, and nothing moves any more."""

    def broken(self, what: str) -> NoReturn:
        raise ViolationError(self.promise, what)

    def let_go_ms(self, shard: str) -> int:
        """What of the shard had arrived before, a person let go, or it was gone when the query began."""
        return max(self.world.begun_ms.get(shard, 0), *self.world.losses_ms, 0)

    def was_let_go(self, identity: Identity) -> bool:
        """Every record of the change was trimmed unread, which was said, and the archive has none."""
        landed = [record for record in self.world.kinesis.landed if landed_identity(record.data) == identity]
        if not landed or any(record.arrived_ms >= self.let_go_ms(record.shard) for record in landed):
            return False
        return not any(
            landed_identity(line) == identity for lines in self.world.delivery.objects for line in lines.splitlines()
        )


def landed_identity(data: bytes) -> Identity:
    envelope = json.loads(data)
    return envelope["table"], envelope["gen"], int(envelope["seq"])
