"""How fresh a steady flow is, by simulation: polls, invocations and batches as they follow each other.

Changes are a flow, not single ones: what waits is a rate times a time. Times are in milliseconds. The delay of the
table's stream itself is not in it: nobody states one.
"""

import math
import random
import statistics
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

from config.limits import KINESIS_GET_CALLS_PER_SHARD_S_MAX, MAPPING_POLLS_PER_SHARD_S

POLL_MS: Final = 1000 / MAPPING_POLLS_PER_SHARD_S
LOOK_MS: Final = 1000 / KINESIS_GET_CALLS_PER_SHARD_S_MAX
_SETTLED_AFTER: Final = 0.25
"""Of the time simulated; what came before is not counted."""
_SAMPLES: Final = 4_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    changes_s: float
    lanes: int
    """Invocations that may run at once: the table's shards, times the mapping's parallelization."""
    invocation_ms: float
    record_ms: float
    """What one more record adds to an invocation."""
    batch_ms: float
    change_ms: float
    """What one more change adds to a batch."""
    batch_spread: float

    @property
    def bridge_load(self) -> float:
        """The share of the time that a lane is at work for its records, whatever its invocations take besides."""
        return self.changes_s / self.lanes * self.record_ms / 1000

    @property
    def job_load(self) -> float:
        return self.changes_s * self.change_ms / 1000


@dataclass(frozen=True, slots=True)
class Freshness:
    p50_ms: float
    p95_ms: float
    batch_every_ms: float


def simulate(flow: Flow, *, seed: int = 1, seconds: float = 600.0) -> Freshness:
    """From a change in the table to its commit. What is more than can be worked off has no freshness."""
    if max(flow.bridge_load, flow.job_load) >= 1:
        raise ValueError("more than can be worked off")
    rng = random.Random(seed)  # noqa: S311 - a simulation's
    end_ms = seconds * 1000
    polls = list(takewhile(lambda poll: poll[0] < end_ms, _invocations(flow, rng)))
    batches = list(takewhile(lambda batch: batch[0] < end_ms, _batches(flow, rng)))
    poll_starts, batch_starts = [start for start, _ in polls], [start for start, _ in batches]
    begin_ms, last_ms = end_ms * _SETTLED_AFTER, min(poll_starts[-1], batch_starts[-1]) * 0.95
    waits = []
    for _ in range(_SAMPLES):
        written = rng.uniform(begin_ms, last_ms)
        sent = polls[bisect_left(poll_starts, written)][1]
        batch = bisect_left(batch_starts, sent)
        if batch < len(batches):
            waits.append(batches[batch][1] - written)
    percentiles = statistics.quantiles(waits, n=20)
    return Freshness(percentiles[9], percentiles[18], (batch_starts[-1] - batch_starts[0]) / (len(batches) - 1))


def batch_every_ms(flow: Flow) -> float:
    """Without chance: a batch takes in what came during the one before it."""
    return max(LOOK_MS, flow.batch_ms / (1 - flow.job_load))


def _invocations(flow: Flow, rng: random.Random) -> Iterator[tuple[float, float]]:
    """Start and end of those of one lane: a poll each, and none while the last one is at work."""
    lane_s = flow.changes_s / flow.lanes
    start, before = rng.uniform(0, POLL_MS), 0.0
    while True:
        waiting = lane_s * (start - before) / 1000
        end = start + flow.invocation_ms + waiting * flow.record_ms
        yield start, end
        before, start = start, max(start + POLL_MS, end)


def _batches(flow: Flow, rng: random.Random) -> Iterator[tuple[float, float]]:
    """Start and end of each: the next begins when the last one ends, as often as Kinesis may be asked."""
    start, before = 0.0, 0.0
    median_of_mean = math.exp(-(flow.batch_spread**2) / 2)
    while True:
        waiting = flow.changes_s * (start - before) / 1000
        took = (flow.batch_ms + waiting * flow.change_ms) * median_of_mean * rng.lognormvariate(0, flow.batch_spread)
        yield start, start + took
        before, start = start, max(start + took, start + LOOK_MS)
