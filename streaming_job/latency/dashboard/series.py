"""What the charts draw: columns over time at three resolutions, in arrays whose size never changes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from streaming_job.latency.hops import CHAIN

LARGEST: Final = ("p50_ms", "p95_ms", "p99_ms", "waiting_ms", "behind_ms", "backlog")
"""Columns of which a longer step keeps the largest value: a peak must not be averaged away."""
ADDED: Final = (
    "in_count",
    "in_s",
    "out_count",
    "out_s",
    "rejects",
    "dead_letters",
    *(f"{hop}_{part}" for hop in CHAIN for part in ("sum_ms", "count")),
)
"""Columns that add up over time; rates and means are divided out only when shown."""
COLUMNS: Final = LARGEST + ADDED
_PLACE: Final = {name: place for place, name in enumerate(COLUMNS)}
_LARGEST: Final = slice(0, len(LARGEST))
_ADDED: Final = slice(len(LARGEST), len(COLUMNS))

SHOWN: Final = (*LARGEST, "in_per_s", "out_per_s", *(f"{hop}_ms" for hop in CHAIN))

Rows = npt.NDArray[np.float64]
Shown = dict[str, list[float | None]]


@dataclass(frozen=True, slots=True)
class Resolution:
    step_s: int
    points: int
    smooth: int = 1
    """Steps over which rates and means are taken: a batch commits about once a second, not evenly."""

    @property
    def range_s(self) -> int:
        return self.step_s * self.points


RESOLUTIONS: Final = (Resolution(1, 300, smooth=5), Resolution(5, 720), Resolution(60, 1_440))
"""5 minutes, 1 hour, 24 hours."""


class Tier:
    """One resolution: a ring of rows, each the sum of one step."""

    def __init__(self, resolution: Resolution) -> None:
        self.resolution = resolution
        self._size = resolution.points + resolution.smooth
        self._rows: Rows = np.full((self._size, len(COLUMNS)), np.nan)
        self._steps: npt.NDArray[np.int64] = np.full(self._size, -1, dtype=np.int64)

    def add(self, at_s: int, row: Rows) -> None:
        step = at_s // self.resolution.step_s
        place = step % self._size
        if self._steps[place] != step:
            self._steps[place] = step
            self._rows[place] = row
            return
        kept = self._rows[place]
        kept[_LARGEST] = np.fmax(kept[_LARGEST], row[_LARGEST])
        kept[_ADDED] = np.where(np.isnan(kept[_ADDED]), row[_ADDED], kept[_ADDED] + np.nan_to_num(row[_ADDED]))

    def shown(self, now_s: int, points: int | None = None) -> dict[str, object]:
        """The last steps up to now, oldest first, from the first that is known; None where nothing is."""
        last = now_s // self.resolution.step_s
        wanted = np.arange(last - (points or self.resolution.points) + 1, last + 1)
        known = np.isin(wanted, self._steps)
        wanted = wanted[known.argmax() :] if known.any() else wanted[:0]
        return {
            "at_s": (wanted * self.resolution.step_s).tolist(),
            "columns": self._columns(wanted),
            "step_s": self.resolution.step_s,
            "range_s": self.resolution.range_s,
        }

    def added(self, name: str, now_s: int, within_s: int) -> float:
        """What one adding column came to lately."""
        oldest = (now_s - within_s) // self.resolution.step_s
        return float(np.nansum(self._rows[self._steps > oldest, _PLACE[name]]))

    @property
    def held_bytes(self) -> int:
        return self._rows.nbytes + self._steps.nbytes

    def _columns(self, steps: npt.NDArray[np.int64]) -> Shown:
        rows = self._at(steps)
        sums = self._summed(steps)
        columns = {name: rows[:, _PLACE[name]] for name in LARGEST}
        with np.errstate(invalid="ignore", divide="ignore"):
            for way in ("in", "out"):
                columns[f"{way}_per_s"] = sums[:, _PLACE[f"{way}_count"]] / sums[:, _PLACE[f"{way}_s"]]
            for hop in CHAIN:
                columns[f"{hop}_ms"] = sums[:, _PLACE[f"{hop}_sum_ms"]] / sums[:, _PLACE[f"{hop}_count"]]
        return {name: [_plain(value) for value in values.tolist()] for name, values in columns.items()}

    def _at(self, steps: npt.NDArray[np.int64]) -> Rows:
        places = steps % self._size
        return np.where((self._steps[places] == steps)[:, None], self._rows[places], np.nan)

    def _summed(self, steps: npt.NDArray[np.int64]) -> Rows:
        """Each step together with those just before it; nothing known in any of them stays unknown."""
        windows = np.stack([self._at(steps - back) for back in range(self.resolution.smooth)])
        return np.where(np.isnan(windows).all(axis=0), np.nan, np.nansum(windows, axis=0))


class History:
    """All resolutions together, fed with one row a second."""

    def __init__(self) -> None:
        self.tiers = tuple(Tier(resolution) for resolution in RESOLUTIONS)

    def add(self, at_s: int, values: Mapping[str, float | None]) -> None:
        row = np.array([np.nan if (value := values.get(name)) is None else value for name in COLUMNS], dtype=np.float64)
        for tier in self.tiers:
            tier.add(at_s, row)

    def latest(self, now_s: int) -> list[dict[str, object]]:
        """The step in progress of each resolution; the browser replaces or appends it."""
        return [tier.shown(now_s, points=1) for tier in self.tiers]

    @property
    def held_bytes(self) -> int:
        return sum(tier.held_bytes for tier in self.tiers)


def _plain(value: float) -> float | None:
    return None if value != value or value in (float("inf"), float("-inf")) else round(value, 3)  # noqa: PLR0124 - NaN
