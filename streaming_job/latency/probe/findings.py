"""All that the probe knows, shared between the threads that bring observations, the one that settles, and /metrics."""

import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, Final

import numpy as np
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from streaming_job.kinesis.fetch import Clock
from streaming_job.latency.probe.balance import Balance
from streaming_job.latency.probe.judge import Judge
from streaming_job.latency.probe.observation import Observation
from streaming_job.latency.sketches import QUANTILES
from streaming_job.latency.window import Window

BRIDGE_TO_STREAM: Final = "bridge_to_stream"
STREAM_TO_PROBE: Final = "stream_to_probe"


class Findings(Collector):
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._judge = Judge()
        self._balance = Balance()
        self._hops: Window[tuple[str, str]] = Window()
        """By table and hop."""
        self._worker_starts = 0

    # What the shards' processors tell.

    def began(self, shard: str, after: str | None) -> None:
        with self._lock:
            breaks = self._judge.counts.breaks
            self._judge.began(shard, after)
            if self._judge.counts.breaks > breaks:
                self._balance.broken()

    def ended(self, shard: str) -> None:
        with self._lock:
            self._judge.ended(shard)

    def took(self, shard: str, observations: Iterable[Observation], behind_ms: int) -> None:
        now_ms = self._clock.now_ms()
        with self._lock:
            new = self._judge.took(shard, observations, behind_ms, now_ms)
            for observation in new:
                if observation.is_change:
                    self._balance.saw(observation.sent_ms)
            self._measure(new, now_ms)

    def _measure(self, new: Sequence[Observation], now_ms: int) -> None:
        hops: dict[tuple[str, str], list[float]] = defaultdict(list)
        for observation in new:
            hops[observation.table, STREAM_TO_PROBE].append(now_ms - observation.arrival_ms)
            if observation.is_change:
                hops[observation.table, BRIDGE_TO_STREAM].append(observation.arrival_ms - observation.sent_ms)
        for key, durations in hops.items():
            self._hops.add(key, np.array(durations, dtype=np.float64), now_ms)

    # What the settling thread and the workers tell.

    def settle(self, sent: int | None, open_shards: Iterable[str]) -> None:
        """`sent`: the bridge's count, None where it did not answer; the stream's shards that still take records."""
        now_ms = self._clock.now_ms()
        with self._lock:
            if sent is not None:
                self._balance.said(sent, now_ms // 1000)
            until_ms = self._judge.read_until_ms(open_shards)
            if until_ms is not None:
                self._balance.settle(until_ms // 1000)

    def worker_started(self) -> None:
        with self._lock:
            self._worker_starts += 1

    # What is read.

    def summary(self) -> dict[str, Any]:
        """`gaps` is None while nothing tells what the bridge sent."""
        with self._lock:
            counts = asdict(self._judge.counts)
            settled_s = self._balance.settled_s
            hops = self._hops.sketches(self._clock.now_ms())
            return {
                **counts,
                "gaps": self._balance.gaps if settled_s else None,
                "settled_s": settled_s or None,
                "shards": sorted(self._judge.shards),
                "worker_starts": self._worker_starts,
                "hops": {
                    f"{table}/{hop}": {f"p{q * 100:.0f}_ms": sketch.quantile_ms(q) for q in QUANTILES}
                    | {"changes": sketch.count, "negative": sketch.negative}
                    for (table, hop), sketch in sorted(hops.items())
                },
            }

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            metrics = [*self._counters(), *self._shards(), *self._durations()]
        yield from metrics

    def _counters(self) -> Iterator[Metric]:
        counts = self._judge.counts
        yield CounterMetricFamily("lakestream_probe_records", "Records of the stream, each once", value=counts.records)
        yield CounterMetricFamily(
            "lakestream_probe_duplicates", "Changes that came again, as their key's newest", value=counts.duplicates
        )
        yield CounterMetricFamily(
            "lakestream_probe_older_after_newer",
            "Changes that came after a newer one of their key: sent again",
            value=counts.older_after_newer,
        )
        yield CounterMetricFamily("lakestream_probe_foreign", "Records that are no envelopes", value=counts.foreign)
        yield CounterMetricFamily(
            "lakestream_probe_redelivered",
            "Records handed over again after a kill or with a lease, not counted twice",
            value=counts.redelivered,
        )
        yield CounterMetricFamily(
            "lakestream_probe_breaks",
            "Shards taken up behind records that another process's worker had read",
            value=counts.breaks,
        )
        yield CounterMetricFamily(
            "lakestream_probe_worker_starts", "Workers started, those that ended included", value=self._worker_starts
        )
        if self._balance.settled_s:
            yield CounterMetricFamily(
                "lakestream_probe_gaps",
                "Changes that the bridge counts as sent and that never came; missing while nothing is known",
                value=self._balance.gaps,
            )
            yield GaugeMetricFamily(
                "lakestream_probe_settled_timestamp_seconds",
                "Up to when the bridge's count and the stream have been compared",
                value=self._balance.settled_s,
            )

    def _shards(self) -> Iterator[Metric]:
        behind = GaugeMetricFamily(
            "lakestream_probe_behind_ms", "How far behind its tip a shard was last read", labels=["shard"]
        )
        for shard, state in sorted(self._judge.shards.items()):
            behind.add_metric([shard], state.behind_ms)
        yield behind

    def _durations(self) -> Iterator[Metric]:
        quantiles = GaugeMetricFamily(
            "lakestream_probe_hop_ms",
            "bridge_to_stream and stream_to_probe over the last minute, by quantile",
            labels=["table", "hop", "quantile"],
        )
        changes = GaugeMetricFamily(
            "lakestream_probe_hop_changes", "Changes measured over the last minute", labels=["table", "hop"]
        )
        negative = GaugeMetricFamily(
            "lakestream_probe_hop_negative",
            "Changes of the last minute whose hop came out below zero: clocks disagree",
            labels=["table", "hop"],
        )
        for (table, hop), sketch in sorted(self._hops.sketches(self._clock.now_ms()).items()):
            changes.add_metric([table, hop], sketch.count)
            negative.add_metric([table, hop], sketch.negative)
            for quantile in QUANTILES:
                value = sketch.quantile_ms(quantile)
                if value is not None:
                    quantiles.add_metric([table, hop, str(quantile)], value)
        yield from (quantiles, changes, negative)
