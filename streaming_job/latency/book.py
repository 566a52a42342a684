"""What the job knows of its own latency: recorded batch by batch, read by /metrics, written to the table `latency`."""

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa

from streaming_job.latency.hops import CLOCKS, Milliseconds, measure
from streaming_job.latency.sketches import HopSketch
from streaming_job.latency.window import Window

MINUTE_MS: Final = 60_000
RECORDED_MAX: Final = 4_096
"""Batches remembered by name. Only the last one before a stop can come again, so few would do."""

HopOfTable = tuple[str, str]
"""Source table's name, hop's name."""


@dataclass(slots=True)
class MinuteOfHop:
    """One row to be of the table `latency`."""

    table: str
    hop: str
    minute_ms: int
    sketch: HopSketch = field(default_factory=HopSketch)
    batches: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Total:
    count: int = 0
    sum_ms: float = 0.0


class LatencyBook:
    """Sketches not yet written, by minute, and those of the last minute, by slot. Safe to use from several threads."""

    def __init__(self, known_batches: Iterable[str] = ()) -> None:
        self._lock = threading.Lock()
        self._recorded = dict.fromkeys(known_batches)
        self._pending: dict[tuple[HopOfTable, int], MinuteOfHop] = {}
        self._live: Window[HopOfTable] = Window()
        self._totals: dict[HopOfTable, Total] = {}

    def record(self, clocks: pa.Table, *, table: str, batch: str, batch_start_ms: int, commit_ms: int) -> None:
        """Measure one table's part of one batch; a batch that was recorded before changes nothing.

        `commit_ms` is when all of it was committed; a column of that name says of each change when it was.

        `batch` names it by the stream positions it ends at, so that a batch run again after a crash has the same name.
        """
        name = f"{table}@{batch}"
        hops = measure(_clocks(clocks, batch_start_ms, commit_ms))
        with self._lock:
            if name in self._recorded:
                return
            self._recorded[name] = None
            if len(self._recorded) > RECORDED_MAX:
                del self._recorded[next(iter(self._recorded))]
            for hop, durations in hops.items():
                if durations.size:
                    self._add((table, hop), durations, commit_ms, name)

    def _add(self, hop_of_table: HopOfTable, durations: Milliseconds, commit_ms: int, name: str) -> None:
        minute_ms = commit_ms - commit_ms % MINUTE_MS
        minute = self._pending.setdefault((hop_of_table, minute_ms), MinuteOfHop(*hop_of_table, minute_ms))
        minute.sketch.add(durations)
        minute.batches.append(name)
        self._live.add(hop_of_table, durations, commit_ms)
        before = self._totals.get(hop_of_table, Total())
        self._totals[hop_of_table] = Total(before.count + durations.size, before.sum_ms + float(durations.sum()))

    def live(self, now_ms: int | None = None) -> dict[HopOfTable, HopSketch]:
        """The last minute's sketches; empty when nothing was committed in it."""
        with self._lock:
            return self._live.sketches(int(time.time() * 1000) if now_ms is None else now_ms)

    def totals(self) -> dict[HopOfTable, Total]:
        """Since the job started: two readings give the mean between them, over any time."""
        with self._lock:
            return dict(self._totals)

    def take(self) -> list[MinuteOfHop]:
        """What was recorded since the last take; the caller writes it or gives it back."""
        with self._lock:
            taken = list(self._pending.values())
            self._pending = {}
        return taken

    def give_back(self, rows: list[MinuteOfHop]) -> None:
        with self._lock:
            for row in rows:
                kept = self._pending.setdefault(((row.table, row.hop), row.minute_ms), row)
                if kept is not row:
                    kept.sketch.merge(row.sketch)
                    kept.batches.extend(row.batches)


def _clocks(table: pa.Table, batch_start_ms: int, commit_ms: int) -> dict[str, Milliseconds]:
    clocks = {name: table.column(name).cast(pa.float64()).to_numpy() for name in CLOCKS}
    own = {"batch_start_ms": batch_start_ms, "commit_ms": commit_ms}
    clocks |= {name: np.full(table.num_rows, value, dtype=np.float64) for name, value in own.items()}
    if "commit_ms" in table.column_names:
        clocks["commit_ms"] = table.column("commit_ms").cast(pa.float64()).to_numpy()
    return clocks
