"""The steps of a batch by name, how long each took, and the one place where a test may stop between them."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum


class Step(StrEnum):
    DECODE = "decode"
    REJECTS = "rejects"
    DUPLICATES = "duplicates"
    ORDER = "order"
    CLAIM_CHECKS = "claim_checks"
    HISTORY = "history"
    NEWEST = "newest"
    FLATTEN = "flatten"
    SCHEMA = "schema"
    NEW_ROWS = "new_rows"
    CURRENT = "current"
    LATENCY = "latency"
    PARK = "park"
    DRAIN = "drain"


AfterStep = Callable[[Step], None]
"""Called when a step is done. The job passes none; fault tests end the process's work here."""


def go_on(_step: Step) -> None:
    """Nothing happens between steps."""


class Stopwatch:
    """Milliseconds by step; a step done twice in a batch counts both times."""

    def __init__(self, after: AfterStep = go_on) -> None:
        self._after = after
        self.spent_ms: dict[str, float] = {}

    @contextmanager
    def step(self, step: Step) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.spent_ms[step] = self.spent_ms.get(step, 0.0) + (time.perf_counter() - started) * 1000
        self._after(step)
