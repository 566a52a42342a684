"""What every checker is."""

from typing import ClassVar, NoReturn

from tests.simulation.errors import ViolationError
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
