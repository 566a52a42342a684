"""A row is only ever replaced by a newer version of itself, and at rest it is the newest that the lake has heard of."""

from tests.simulation.checkers.base import Checker
from tests.simulation.decoder import Change
from tests.simulation.model import identity_of, order_of
from tests.simulation.observations import Merged, Observation
from tests.simulation.world import World


class NeverBack(Checker):
    promise = "2: nothing goes back in time"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._stood: dict[tuple[str, str], str] = {}
        """The newest that ever stood in a row, purged or not."""

    def see(self, observation: Observation) -> None:
        match observation:
            case Merged(table, key, _, after) if after is not None:
                stood = self._stood.get((table, key))
                is_back_again = observation.before is None and stood == after.seq  # a tombstone, purged and replayed
                if stood is not None and order_of(after.seq) <= order_of(stood) and not is_back_again:
                    self.broken(f"{table} {key}: {stood} stood there, and {after.seq} came after it")
                self._stood[table, key] = after.seq
            case Merged(table, key, before, None) if before is not None and not before.deleted:
                self.broken(f"{table} {key}: a live row was purged")

    def at_rest(self) -> None:
        for name, table in self.world.lake.tables.items():
            newest: dict[str, Change] = {}
            for change in table.history:
                held = newest.get(change.key)
                if held is None or order_of(change.seq) > order_of(held.seq):
                    newest[change.key] = change
            purges = self.model.rules[name].purges
            for key, change in newest.items():
                row = table.current.get(key)
                if row is None and purges and change.op == "REMOVE":
                    continue
                is_newest = row is not None and order_of(row.seq) == order_of(change.seq)
                if not is_newest and self.was_let_go(identity_of(name, change.seq)):
                    continue  # a batch was cut off between the two tables, and could not be run again
                if row is None or not is_newest:
                    self.broken(f"{name} {key}: current has {row.seq if row else 'no row'}, history {change.seq}")
                if row.deleted != (change.op == "REMOVE") or row.item != (None if row.deleted else change.new):
                    self.broken(f"{name} {key}: current does not say what {change.seq} says")
            if strangers := sorted(table.current.keys() - newest.keys()):
                self.broken(f"{name}: rows that no change made: {strangers}")
