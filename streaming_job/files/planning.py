"""Which objects the next batch takes, and where that leaves the query. Pure: a listing in, an offset out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from streaming_job.files.offsets import Folder, Place
from streaming_job.objects import Listed

Look = Iterable[tuple[str, Sequence[Listed]]]
"""Folders in order, whole, each with its objects by their names in it. Lazy: what a full batch leaves is not listed."""


@dataclass
class Budget:
    """What is left of a batch's limits. The first object always fits."""

    objects: int
    bytes: int
    _is_untouched: bool = True

    def take(self, unread: Sequence[Listed]) -> Sequence[Listed]:
        for count, entry in enumerate(unread):
            if not self._is_untouched and (self.objects < 1 or self.bytes < entry.bytes):
                return unread[:count]
            self._is_untouched = False
            self.objects -= 1
            self.bytes -= entry.bytes
        return unread


@dataclass(frozen=True, slots=True)
class Horizon:
    late: str
    """In folders before this one nothing lands any more; empty where folders are not filed by time."""
    rest_ms: int
    """A folder where nothing landed since then is at rest."""


@dataclass(frozen=True, slots=True)
class Plan:
    place: Place
    objects: int
    bytes: int
    waiting_since_ms: int | None
    """When the oldest object known to be left for the next batch had landed; None where none is left."""


def plan(start: Place, look: Look, budget: Budget, horizon: Horizon) -> Plan:
    """`look` begins at `start.begin`, or behind it where all that lies between was seen to be taken before."""
    touched: dict[str, Folder] = {}
    taken = size = 0
    waiting_since_ms = None
    for name, found in look:
        state, unread = start.folders.get(name, Folder()).unread(found)
        chosen = budget.take(unread)
        if chosen:
            touched[name] = state.taking(chosen)
            taken += len(chosen)
            size += sum(entry.bytes for entry in chosen)
        if len(chosen) < len(unread):
            waiting_since_ms = min(entry.modified_ms for entry in unread[len(chosen) :])
            break
    place = _tidied(start, min(horizon.late, *touched), horizon.rest_ms, touched) if touched else start
    return Plan(place, taken, size, waiting_since_ms)


def _tidied(start: Place, done: str, rest_ms: int, touched: Mapping[str, Folder]) -> Place:
    """Without the folders that are done with, and those at rest summed up; of the touched ones every name is kept,
    since the batch is what the names have grown by.
    """
    begin = max(start.begin, done)
    kept = {
        name: folder.at_rest() if folder.newest_ms < rest_ms and folder.names else folder
        for name, folder in start.folders.items()
        if name >= begin and name not in touched
    }
    return Place(begin, {**kept, **touched})
