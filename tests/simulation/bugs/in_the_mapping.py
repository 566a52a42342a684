"""What can be wrong about reading the table's stream."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from infra.local.mapping.checkpoint import Checkpoint
from infra.local.mapping.event import Change
from infra.local.mapping.lane import Lane, Policy
from infra.local.mapping.outcome import Outcome


class FailureListIgnored(Lane):
    """The function returned, so the batch is done."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(replace(policy, report_failures=False))


class HighestDone(Checkpoint):
    """The position moves to the furthest change that is done, past some that are not."""

    def done(self, changes: Iterable[Change]) -> bool:
        self.after = max([*(change.sequence for change in changes), self.after or "0"], key=int)
        for sequence in [read for read in self._read if int(read) <= int(self.after)]:
            self._read.remove(sequence)
        return True


class DoneWhenRead(Checkpoint):
    """The position moves as soon as changes are read: a kill then skips what was in hand."""

    def read(self, changes: Iterable[Change]) -> None:
        read = list(changes)
        super().read(read)
        super().done(read)

    def done(self, changes: Iterable[Change]) -> bool:
        return True


class NewestFirst(Lane):
    """Changes wait on a stack."""

    def add(self, changes: Iterable[Change], now_s: float) -> None:
        held = list(self._waiting)
        self._waiting.clear()
        super().add([*changes, *held], now_s)


class DoneBeforeTheFailure(Lane):
    """After a failure in part the batch goes on behind the failed record."""

    def settle(self, outcome: Outcome, now_s: float) -> Sequence[Change]:
        before = len(self._in_hand[0].changes)
        done = super().settle(outcome, now_s)
        if 0 < len(done) < before and self._in_hand:
            return [*done, *self._done()]
        return done
