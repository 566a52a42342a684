"""What rules drop or hash is in no record, object or log line; raw letters rest under their own key."""

from tests.simulation.checkers.base import Checker
from tests.simulation.observations import Archived, Landed, Logged, Observation, Stored
from tests.simulation.rules import SECRET_WORD

_WORD = SECRET_WORD.encode()


class Private(Checker):
    promise = "7: private"

    def see(self, observation: Observation) -> None:
        match observation:
            case Landed(data=data):
                self._check(data, "a record in Kinesis")
            case Archived(lines):
                self._check(lines, "the archive")
            case Logged(line):
                if SECRET_WORD in line:
                    self.broken("a log line holds what a table's users wrote")
            case Stored(name, _, encrypted) if name.startswith("dead-letters/"):
                if not encrypted:
                    self.broken(f"{name} is a raw record, and not under the letters' key")
            case Stored(name, body, _) if name.startswith("claims/"):
                if self.model.rules[name.split("/")[1]].masks and _WORD in body:
                    self.broken("a claim check holds what the rules drop or hash")
            case Stored(name, body, _):
                self._check(body, name.split("/")[0])

    def _check(self, data: bytes, where: str) -> None:
        """Where a table has no masks, its words may be anywhere: only lines of tables that mask are looked at."""
        if _WORD not in data:
            return
        masked = [f'"table":"{name}"'.encode() for name, rules in self.model.rules.items() if rules.masks]
        for line in data.splitlines():
            if _WORD in line and any(table in line for table in masked):
                self.broken(f"{where} holds what the rules drop or hash")
