"""Which rows of an insert-only table are there, of those whose own time is not long past. Pure.

A change that comes now is almost always new to the history, and to know it for sure costs a merge: reading the files of
its time again. Here each recent row is a 64-bit hash of its unique key, under the minute of its time, so that rows that
are surely new can be appended. A hash that two keys share, and a row older than what is kept, only mean a merge.
"""

from collections.abc import Sequence
from typing import Any, Final

import pyarrow as pa

from streaming_job.pipeline.arrow import values

WINDOW_MS: Final = 15 * 60_000
_ROWS_MAX: Final = 500_000
_MINUTE_MS: Final = 60_000


class RecentRows:
    def __init__(self, since_ms: int) -> None:
        """All rows of that time and later are to be added; where the table has none yet, from the beginning."""
        self._complete_since = -(-since_ms // _MINUTE_MS)
        self._minutes: dict[int, set[int]] = {}
        self._count = 0

    def lacks(self, hashes: Sequence[int], times_ms: Sequence[int]) -> bool:
        """Surely none of these rows is there."""
        nothing: frozenset[int] = frozenset()
        return all(
            minute >= self._complete_since and hash_ not in self._minutes.get(minute, nothing)
            for hash_, minute in zip(hashes, _minutes(times_ms), strict=True)
        )

    def add(self, hashes: Sequence[int], times_ms: Sequence[int]) -> None:
        for hash_, minute in zip(hashes, _minutes(times_ms), strict=True):
            if minute >= self._complete_since:
                held = self._minutes.setdefault(minute, set())
                before = len(held)
                held.add(hash_)
                self._count += len(held) - before
        if self._count > _ROWS_MAX:
            self._forget_half()

    def _forget_half(self) -> None:
        """At once: the past of a whole year may come a minute a row, and looking for its oldest takes a pass."""
        for minute in sorted(self._minutes):
            if self._count <= _ROWS_MAX // 2:
                break
            self._count -= len(self._minutes.pop(minute))
            self._complete_since = minute + 1

    def __len__(self) -> int:
        return self._count


def hashes_of(rows: pa.Table | pa.RecordBatch, unique: Sequence[str]) -> list[int]:
    columns: list[list[Any]] = [values(rows, name) for name in unique]
    return list(map(hash, zip(*columns, strict=True)))


def _minutes(times_ms: Sequence[int]) -> list[int]:
    return [time_ms // _MINUTE_MS for time_ms in times_ms]
