"""How far ahead an executor's span may reach, from how densely the shard was seen to be filled. Pure values."""

from dataclasses import dataclass
from typing import Final

from streaming_job.kinesis.rows import Rows

STEP_MS_MAX: Final = 3_600_000
SAMPLE_MS_MIN: Final = 50
"""Records of one PutRecords arrive in the same millisecond: a small sample says nothing about less time than this."""
STEP_GROWTH_MAX: Final = 4.0
"""A sparse stretch must not make one step span a burst that follows it."""


@dataclass(frozen=True)
class Density:
    """Rows and bytes for each millisecond of arrival."""

    rows: float
    size: float

    @classmethod
    def of(cls, rows: Rows) -> "Density | None":
        if not rows:
            return None
        span_ms = max(SAMPLE_MS_MIN, rows.arrivals_ms[-1] - rows.arrivals_ms[0])
        return cls(len(rows) / span_ms, rows.size / span_ms)

    @property
    def record_bytes(self) -> float:
        return self.size / self.rows

    def over(self, other: "Density | None") -> "Density":
        """The denser of two stretches: a span lies between them."""
        if other is None:
            return self
        return Density(max(self.rows, other.rows), max(self.size, other.size))


def came_at_once(rows: Rows) -> bool:
    """Too little time lies between its first record and its last to tell how many come in more of it."""
    return bool(rows) and rows.arrivals_ms[-1] - rows.arrivals_ms[0] < SAMPLE_MS_MIN


def step_ms(density: Density, *, rows_max: int, size_max: int, last_step_ms: int | None) -> int:
    """Time from one bound to the next so that the span stays within the limits, as far as density tells."""
    wanted = min(rows_max / density.rows, size_max / max(density.size, 1e-9), STEP_MS_MAX)
    if last_step_ms is not None:
        wanted = min(wanted, last_step_ms * STEP_GROWTH_MAX)
    return max(1, int(wanted))
