"""Durations of the last minute, as sketches, by whatever they are told apart by. Not safe to share between threads."""

from collections import defaultdict
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

from streaming_job.latency.hops import Milliseconds
from streaming_job.latency.sketches import HopSketch

SLOT_MS: Final = 5_000
WINDOW_MS: Final = 60_000

K = TypeVar("K", bound=Hashable)


class Window(Generic[K]):
    def __init__(self) -> None:
        self._slots: dict[int, dict[K, HopSketch]] = defaultdict(dict)

    def add(self, key: K, durations: Milliseconds, now_ms: int) -> None:
        self._forget_before(now_ms - WINDOW_MS)
        self._slots[now_ms - now_ms % SLOT_MS].setdefault(key, HopSketch()).add(durations)

    def sketches(self, now_ms: int) -> dict[K, HopSketch]:
        """Merged; a key of which nothing came within the minute is not there."""
        merged: dict[K, HopSketch] = defaultdict(HopSketch)
        for slot_ms, slot in self._slots.items():
            if slot_ms >= now_ms - WINDOW_MS:
                for key, sketch in slot.items():
                    merged[key].merge(sketch)
        return dict(merged)

    def _forget_before(self, horizon_ms: int) -> None:
        for slot_ms in [slot_ms for slot_ms in self._slots if slot_ms < horizon_ms]:
            del self._slots[slot_ms]
