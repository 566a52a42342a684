"""Where in a table the row of a key may be: by the time it was written at, which every file knows the span of.

A merge by key alone reads every file's keys, and the more files a table has the longer it takes. With the times a key's
row may have been written at, it reads the files of those times, and none for a key that is surely new. Keys are held as
64-bit hashes: 16 bytes a row, so that ten million rows take 160 MB. A hash that two keys may share only makes a merge
look into more files: times are added for it, and never taken away.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import compress, pairwise
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streaming_job.pipeline import rust_sql
from streaming_job.pipeline.arrow import Column, pc

Hashes = NDArray[np.int64]
_RECENT_MAX: Final = 200_000
"""Keys that are kept apart before they are sorted in: what costs a pass over all of them."""
_SPANS_MAX: Final = 16
PLACES_MAX: Final = 16
"""Of one key; past that a merge soon reads every file, and to read the table anew costs less."""


class KeyIndex:
    def __init__(self, rows: Iterable[tuple[Column, Column]]) -> None:
        """`rows` are keys and times, a piece at a time."""
        pieces = [(_hashed(keys), micros(times)) for keys, times in rows]
        hashes = np.concatenate([np.empty(0, np.int64), *(each[0] for each in pieces)])
        times = np.concatenate([np.empty(0, np.int64), *(each[1] for each in pieces)])
        order = np.argsort(hashes, kind="stable")
        self._hashes, self._times = hashes[order], times[order]
        self._recent: dict[int, tuple[int, ...]] = {}
        self._shared = set(self._hashes[1:][self._hashes[1:] == self._hashes[:-1]].tolist())
        self.is_worn = False
        """A key may be in too many places."""

    def look_up(self, keys: Column) -> "Found":
        hashes = _hashed(keys)
        recent = self._recent
        places = [
            (*self._times[which].tolist(), *recent.get(key, ()))
            for key, which in zip(hashes.tolist(), self._sorted_in(hashes), strict=True)
        ]
        return Found(hashes, places)

    def _sorted_in(self, hashes: Hashes) -> list[slice]:
        left, right = (np.searchsorted(self._hashes, hashes, side).tolist() for side in ("left", "right"))
        return list(map(slice, left, right))

    def written(self, found: "Found", times: Column, *, inserted: int, updated: int) -> None:
        """What became of the keys that were looked up: rows written at `times`, of which not all may be.

        A key without a place is inserted, whatever its row. Only where all others were updated is it known that each is
        at its new time and nowhere else.
        """
        if not inserted + updated:
            return
        as_it_looked = inserted == found.unknown and updated == found.known
        self._note_shared(found, inserted)
        sorted_in, moments = self._sorted_in(found.hashes), micros(times).tolist()
        for key, places, which, time in zip(found.hashes.tolist(), found.places, sorted_in, moments, strict=True):
            if as_it_looked and key not in self._shared:
                self._settle(key, which, time)
            elif time not in places:
                self._recent[key] = (*self._recent.get(key, ()), time)
                self.is_worn |= len({*places, time}) > PLACES_MAX
        if len(self._recent) > _RECENT_MAX:
            self._sort_in()

    def _note_shared(self, found: "Found", inserted: int) -> None:
        """A row that was inserted in spite of a place is of another key; or the key's own was deleted."""
        if inserted > found.unknown:
            self._shared.update(found.hashes.tolist())
        elif len(np.unique(found.hashes)) < len(found.hashes):
            self._shared.update(key for key, count in Counter(found.hashes.tolist()).items() if count > 1)

    def _settle(self, key: int, which: slice, time: int) -> None:
        if which.start == which.stop:
            self._recent[key] = (time,)
        else:
            self._times[which] = time
            self._recent.pop(key, None)

    def _sort_in(self) -> None:
        recent = sorted((key, time) for key, times in self._recent.items() for time in times)
        hashes, times = (np.array(column, np.int64) for column in zip(*recent, strict=True))
        at = np.searchsorted(self._hashes, hashes)
        hashes, times = np.insert(self._hashes, at, hashes), np.insert(self._times, at, times)
        is_other = np.append(True, (hashes[1:] != hashes[:-1]) | (times[1:] != times[:-1]))
        self._hashes, self._times = hashes[is_other], times[is_other]
        self._recent = {}

    def __len__(self) -> int:
        return len(self._hashes) + len(self._recent)


class Found:
    """Of each key looked up the times its row may have been written at; none: it is not there."""

    def __init__(self, hashes: Hashes, places: Sequence[tuple[int, ...]]) -> None:
        self.hashes = hashes
        self.places = places
        self.known = sum(1 for times in places if times)
        self.unknown = len(places) - self.known

    def only(self, those: Sequence[bool]) -> "Found":
        return Found(self.hashes[np.array(those, np.bool_)], list(compress(self.places, those)))

    def times(self) -> list[int]:
        """All of them, once, in order."""
        return sorted({time for times in self.places for time in times})

    def condition(self, column: str) -> str:
        """On the target alone, for every row that may match."""
        spans = _spans(self.times())
        if not spans:
            return f"{column} < {rust_sql.moment(0)}"
        within = [(rust_sql.moment(first), rust_sql.moment(last)) for first, last in spans]
        return " OR ".join(f"({column} >= {first} AND {column} <= {last})" for first, last in within)


def _spans(times: Sequence[int]) -> list[tuple[int, int]]:
    """All times within at most so many spans, the widest gaps left out."""
    gaps = sorted(range(1, len(times)), key=lambda at: times[at] - times[at - 1], reverse=True)
    cuts = [0, *sorted(gaps[: _SPANS_MAX - 1]), len(times)]
    return [(times[start], times[end - 1]) for start, end in pairwise(cuts) if start < end]


def _hashed(keys: Column) -> Hashes:
    held = keys.to_pylist()
    return np.fromiter(map(hash, held), np.int64, len(held))


def micros(times: Any) -> NDArray[np.int64]:
    column = pc.cast(times.cast(pa.timestamp("us", "UTC")), pa.int64())
    numbers: NDArray[np.int64] = column.to_numpy() if isinstance(column, pa.ChunkedArray) else np.asarray(column)
    return numbers
