"""How far a shard is done: lanes finish out of order, the position only moves over what all of them have finished."""

from collections import deque
from collections.abc import Iterable

from infra.local.mapping.event import Change


class Checkpoint:
    def __init__(self, after: str | None) -> None:
        self.after = after
        """The last sequence number before which, and with which, everything is done."""
        self._read: deque[str] = deque()
        self._done: set[str] = set()

    def __len__(self) -> int:
        return len(self._read)

    def read(self, changes: Iterable[Change]) -> None:
        self._read.extend(change.sequence for change in changes)

    def done(self, changes: Iterable[Change]) -> bool:
        """Whether the position moved."""
        self._done.update(change.sequence for change in changes)
        before = self.after
        while self._read and self._read[0] in self._done:
            self.after = self._read.popleft()
            self._done.remove(self.after)
        return self.after != before
