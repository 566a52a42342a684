"""The hops of a change on its way from producer to queryable row, and which clocks measure each.

A hop is the difference of two clocks. Those that involve the table's stream are known to whole seconds only
(DynamoDB floors its creation time), so they carry `resolution_ms=1000` and never share a percentile with the others.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Milliseconds = npt.NDArray[np.float64]
"""Epoch milliseconds of many changes, NaN where a change does not carry that clock."""


@dataclass(frozen=True, slots=True)
class Hop:
    name: str
    start: str
    end: str
    resolution_ms: int = 1


HOPS: Final = (
    Hop("origin_to_bridge", "origin_ms", "bridge_in_ms"),
    Hop("bridge", "bridge_in_ms", "bridge_out_ms"),
    Hop("bridge_to_kinesis", "bridge_out_ms", "arrival_ms"),
    Hop("kinesis_to_batch", "arrival_ms", "batch_start_ms"),
    Hop("batch_to_commit", "batch_start_ms", "commit_ms"),
    Hop("origin_to_commit", "origin_ms", "commit_ms"),
    Hop("origin_to_stream", "origin_ms", "created_ms", resolution_ms=1000),
    Hop("stream_to_bridge", "created_ms", "bridge_in_ms", resolution_ms=1000),
    Hop("stream_to_commit", "created_ms", "commit_ms", resolution_ms=1000),
)
CHAIN: Final = tuple(
    hop.name
    for hop in HOPS
    if hop.name in {"origin_to_bridge", "bridge", "bridge_to_kinesis", "kinesis_to_batch", "batch_to_commit"}
)
"""The fine hops that lie end to end: their sum is the whole."""
WHOLE: Final = "origin_to_commit"
CLOCKS: Final = ("origin_ms", "created_ms", "bridge_in_ms", "bridge_out_ms", "arrival_ms")
"""The clocks a change brings along; `batch_start_ms` and `commit_ms` are the job's own."""


def measure(clocks: Mapping[str, Milliseconds]) -> dict[str, Milliseconds]:
    """Every hop's durations in milliseconds, changes that lack one of its two clocks left out."""
    measured = {}
    for hop in HOPS:
        durations = clocks[hop.end] - clocks[hop.start]
        measured[hop.name] = durations[~np.isnan(durations)]
    return measured
