"""Whether the job is well: `starting`, `ready`, `stalled` or `stopping`, by when it last showed progress."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    STARTING = "starting"
    READY = "ready"
    STALLED = "stalled"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class Verdict:
    state: State
    reason: str

    @property
    def healthy(self) -> bool:
        return self.state is State.READY


class Health:
    """Progress is a committed batch, or a look at the source that found nothing new."""

    def __init__(self, unhealthy_after_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._unhealthy_after_s = unhealthy_after_s
        self._clock = clock
        self._lock = threading.Lock()
        self._progress_at: float | None = None
        self._stopping = False

    def progressed(self) -> None:
        with self._lock:
            self._progress_at = self._clock()

    def stopping(self) -> None:
        with self._lock:
            self._stopping = True

    def verdict(self) -> Verdict:
        with self._lock:
            stopping, progress_at = self._stopping, self._progress_at
        if stopping:
            return Verdict(State.STOPPING, "asked to stop; the batch in hand is being finished")
        if progress_at is None:
            return Verdict(State.STARTING, "no batch and no look at the source yet")
        if stalled_s := self.stalled_s():
            return Verdict(
                State.STALLED, f"no batch committed for {stalled_s:.0f} s (limit {self._unhealthy_after_s:.0f} s)"
            )
        return Verdict(State.READY, "batches are being committed, or there is nothing to commit")

    def stalled_s(self) -> float:
        """How long ago the last progress was; 0 while that is within the limit, and before the first."""
        with self._lock:
            progress_at = self._progress_at
        silent_s = 0.0 if progress_at is None else self._clock() - progress_at
        return silent_s if silent_s > self._unhealthy_after_s else 0.0
