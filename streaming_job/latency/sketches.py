"""Percentiles that can be merged: one DDSketch for each hop, table and minute.

A sketch is kept as its bins (value and count), not as an opaque message: SQL can then merge minutes by itself,
`percentile(bin.value_ms, 0.95, bin.count)`, within the same 1 % of relative error.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from ddsketch import DDSketch
from ddsketch.mapping import LogarithmicMapping
from ddsketch.pb.proto import DDSketchProto

from streaming_job.latency.hops import Milliseconds

RELATIVE_ACCURACY: Final = 0.01
QUANTILES: Final = (0.5, 0.95, 0.99)


@dataclass(frozen=True, slots=True)
class Bin:
    value_ms: float
    count: int


@dataclass(slots=True)
class HopSketch:
    """Durations of one hop: percentiles by sketch; count, sum and extremes exactly; skewed ones counted."""

    sketch: DDSketch = field(default_factory=lambda: DDSketch(RELATIVE_ACCURACY))
    count: int = 0
    negative: int = 0
    """Durations below zero: two machines' clocks disagree. They stay in the percentiles as they are."""
    sum_ms: float = 0.0
    min_ms: float = float("inf")
    max_ms: float = float("-inf")

    def add(self, durations: Milliseconds) -> None:
        if durations.size == 0:
            return
        values, counts = np.unique(durations, return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            self.sketch.add(value, float(count))
        self.count += int(durations.size)
        self.negative += int((durations < 0).sum())
        self.sum_ms += float(durations.sum())
        self.min_ms = min(self.min_ms, float(values[0]))
        self.max_ms = max(self.max_ms, float(values[-1]))

    def merge(self, other: "HopSketch") -> None:
        self.sketch.merge(other.sketch)
        self.count += other.count
        self.negative += other.negative
        self.sum_ms += other.sum_ms
        self.min_ms = min(self.min_ms, other.min_ms)
        self.max_ms = max(self.max_ms, other.max_ms)

    def quantile_ms(self, quantile: float) -> float | None:
        value = self.sketch.get_quantile_value(quantile)
        return None if value is None else float(value)

    def bins(self) -> list[Bin]:
        """The sketch's occupied bins, smallest value first."""
        message = DDSketchProto.to_proto(self.sketch)  # type: ignore[no-untyped-call]
        negative = [Bin(-_MAPPING.value(key), count) for key, count in reversed(_occupied(message.negativeValues))]
        zero = [Bin(0.0, int(message.zeroCount))] if message.zeroCount else []
        return negative + zero + [Bin(_MAPPING.value(key), count) for key, count in _occupied(message.positiveValues)]

    @classmethod
    def of_bins(cls, bins: Iterable[Bin], *, negative: int, sum_ms: float, min_ms: float, max_ms: float) -> "HopSketch":
        sketch = cls(negative=negative, sum_ms=sum_ms, min_ms=min_ms, max_ms=max_ms)
        for a_bin in bins:
            sketch.sketch.add(a_bin.value_ms, float(a_bin.count))
            sketch.count += a_bin.count
        return sketch


_MAPPING: Final = LogarithmicMapping(RELATIVE_ACCURACY)


def _occupied(store: Any) -> list[tuple[int, int]]:
    """Key and count of each bin that holds something, by key."""
    offset = store.contiguousBinIndexOffset
    return [(offset + index, int(count)) for index, count in enumerate(store.contiguousBinCounts) if count]
