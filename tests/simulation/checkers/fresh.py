"""Each hop's clock is read when the hop happens, by the machine that makes it."""

import json

from tests.simulation.checkers.base import Checker
from tests.simulation.model import identity_of
from tests.simulation.observations import Answered, Landed, Observation


class Fresh(Checker):
    promise = "5: each hop is measured"

    def see(self, observation: Observation) -> None:
        match observation:
            case Landed():
                self._sent(observation)
            case Answered():
                for landed in observation.landed:
                    arrived_ms = json.loads(landed.data)["bridge_in_ms"]
                    if arrived_ms != observation.began_ms:
                        self.broken(f"bridge_in_ms is {arrived_ms}, the batch arrived at {observation.began_ms}")

    def _sent(self, landed: Landed) -> None:
        envelope = json.loads(landed.data)
        is_stamped = envelope["bridge_out_ms"] == landed.called_ms
        if not is_stamped and not self.world.is_rejected(landed.data):  # what was rejected goes again as it was
            self.broken(f"bridge_out_ms is {envelope['bridge_out_ms']}, the call began at {landed.called_ms}")
        expected = self.model.expected.get(identity_of(envelope["table"], f"{envelope['gen']}-{envelope['seq']}"))
        if expected is not None and envelope["created_ms"] != expected.fact.created_ms:
            self.broken(f"created_ms is {envelope['created_ms']}, the stream says {expected.fact.created_ms}")
