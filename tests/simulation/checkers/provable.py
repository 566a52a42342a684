"""Equal items have equal digests and different ones different ones; what was nearly trimmed leaves a mark."""

from typing import Any, Final

from tests.simulation import meaning
from tests.simulation.checkers.base import Checker
from tests.simulation.clock import HOUR_MS
from tests.simulation.observations import Answered, Observation, Remembered
from tests.simulation.world import World

_NEARLY_TRIMMED_MS: Final = 23 * HOUR_MS


class Provable(Checker):
    promise = "6: provable"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._digest_of: dict[Any, str] = {}
        self._item_of: dict[str, Any] = {}

    def see(self, observation: Observation) -> None:
        match observation:
            case Remembered(change) if change.new is not None:
                item = meaning.of_plain(change.new, change.types, "/new")
                if change.digest is None or self._digest_of.setdefault(item, change.digest) != change.digest:
                    self.broken(f"{change.seq}: one item, two digests")
                if self._item_of.setdefault(change.digest, item) != item:
                    self.broken(f"{change.seq}: two items, one digest")
            case Remembered(change) if change.digest is not None:
                self.broken(f"{change.seq}: a digest of nothing")
            case Answered():
                self._nearly_trimmed(observation)

    def _nearly_trimmed(self, seen: Answered) -> None:
        first = seen.records[0]
        age_ms = seen.began_ms - first["dynamodb"]["ApproximateCreationDateTime"] * 1000
        if age_ms < _NEARLY_TRIMMED_MS or not seen.mark_possible:
            return
        table = first["eventSourceARN"].split("/")[1]
        if not self.world.s3.names(f"unproven/{table}/"):
            self.broken(f"a record {age_ms} ms old left no mark that {table} is unproven")

    def at_rest(self) -> None:
        for name, table in self.world.lake.tables.items():
            for key, row in table.current.items():
                change = table.known.get((key, row.seq))
                if change is not None and row.digest != change.digest:
                    self.broken(f"{name} {key}: current has another digest than history")
