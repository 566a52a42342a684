"""Every figure the job publishes at /metrics: its name, its labels, and what it means."""

import time
from collections.abc import Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from streaming_job.files.watch import Progress as ArchiveProgress
from streaming_job.health import Health
from streaming_job.kinesis.progress import ShardProgress
from streaming_job.latency.book import LatencyBook
from streaming_job.latency.sketches import QUANTILES

_STEP_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class JobMetrics:
    def __init__(self, book: LatencyBook, health: Health) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Wellness(health))
        self.changes = Counter(
            "lakestream_changes",
            "Changes committed to the tables, duplicates left out",
            ["table"],
            registry=self.registry,
        )
        self.duplicates = Counter(
            "lakestream_duplicates", "Changes that history had already", ["table"], registry=self.registry
        )
        self.rejects = Counter("lakestream_rejects", "Records that went to the table rejects", registry=self.registry)
        self.rescued = Counter(
            "lakestream_rescued",
            "Rows with a value that did not fit its column and is kept in _rescued",
            ["table"],
            registry=self.registry,
        )
        self.columns = Counter(
            "lakestream_columns_added", "Columns that appeared in current", ["table"], registry=self.registry
        )
        self.parked = Gauge(
            "lakestream_parked", "Changes parked because their table fails", ["table"], registry=self.registry
        )
        self.refused = Gauge(
            "lakestream_refused",
            "Changes refused because nobody stated where their stream stands in the order",
            ["table"],
            registry=self.registry,
        )
        self.unproven = Gauge(
            "lakestream_unproven",
            "1 while changes of the table may be missing, until verify finds it equal or it is rebuilt",
            ["table"],
            registry=self.registry,
        )
        self.taken_in = Counter(
            "lakestream_taken_in",
            "Rows that commands handed over and that were taken in between batches",
            registry=self.registry,
        )
        self.batches = Counter("lakestream_batches", "Batches whose every step was committed", registry=self.registry)
        self.batch_rows = Gauge("lakestream_batch_rows", "Rows of the last batch", registry=self.registry)
        self.step_seconds = Histogram(
            "lakestream_step_seconds",
            "Duration of each step of a batch",
            ["step"],
            buckets=_STEP_BUCKETS_S,
            registry=self.registry,
        )
        self.last_commit = Gauge(
            "lakestream_last_commit_timestamp_seconds",
            "When the last batch was committed, 0 before the first",
            registry=self.registry,
        )
        self.source = SourceProgress()
        self.registry.register(self.source)
        self.latency_failures = Counter(
            "lakestream_latency_flush_failures",
            "Flushes of latency figures that failed and are tried again",
            registry=self.registry,
        )
        self.registry.register(_LiveHops(book))


class _Wellness(Collector):
    """What /healthz says, for whoever reads /metrics alone: a hung batch looks like a quiet stream in all the rest."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield GaugeMetricFamily(
            "lakestream_ready",
            "1 while the job shows progress, 0 while it starts, is stalled or is being stopped",
            value=float(self._health.verdict().healthy),
        )
        yield GaugeMetricFamily(
            "lakestream_stalled_seconds",
            "How long the job has shown no progress, once that is longer than it may be; 0 before",
            value=self._health.stalled_s(),
        )


class _LiveHops(Collector):
    """Percentiles of the last minute; a hop without changes in it has no sample rather than an old one."""

    def __init__(self, book: LatencyBook) -> None:
        self._book = book

    def collect(self) -> Iterator[GaugeMetricFamily | SummaryMetricFamily]:
        quantiles = GaugeMetricFamily(
            "lakestream_hop_ms",
            "Duration of a hop over the last minute, by quantile",
            labels=["table", "hop", "quantile"],
        )
        counts = GaugeMetricFamily(
            "lakestream_hop_changes", "Changes measured over the last minute", labels=["table", "hop"]
        )
        negatives = GaugeMetricFamily(
            "lakestream_hop_negative",
            "Changes of the last minute whose hop came out below zero: clocks disagree",
            labels=["table", "hop"],
        )
        for (table, hop), sketch in sorted(self._book.live(int(time.time() * 1000)).items()):
            counts.add_metric([table, hop], sketch.count)
            negatives.add_metric([table, hop], sketch.negative)
            for quantile in QUANTILES:
                value = sketch.quantile_ms(quantile)
                if value is not None:
                    quantiles.add_metric([table, hop, str(quantile)], value)
        totals = SummaryMetricFamily(
            "lakestream_hop_duration_ms",
            "Durations of a hop since the job started: means add up along the way, as quantiles do not",
            labels=["table", "hop"],
        )
        for (table, hop), total in sorted(self._book.totals().items()):
            totals.add_metric([table, hop], total.count, total.sum_ms)
        yield from (quantiles, counts, negatives, totals)


class SourceProgress(Collector):
    """The source's own counters, as Spark's progress last told them; other sources tell none."""

    def __init__(self) -> None:
        self._shards: Sequence[ShardProgress] = ()
        self._archives: Mapping[str, ArchiveProgress] = {}

    def update(self, shards: Sequence[ShardProgress]) -> None:
        self._shards = shards or self._shards

    def update_archives(self, archives: Mapping[str, ArchiveProgress]) -> None:
        self._archives = archives or self._archives

    def collect(self) -> Iterator[Metric]:
        behind = GaugeMetricFamily(
            "lakestream_source_behind_ms", "How far behind its tip the shard was last read", labels=["shard"]
        )
        read_until = GaugeMetricFamily(
            "lakestream_source_read_until_timestamp_seconds",
            "Nothing that arrived in the shard before then is unread",
            labels=["shard"],
        )
        kept = GaugeMetricFamily(
            "lakestream_source_retention_seconds", "How long the shard's stream keeps a record", labels=["shard"]
        )
        used = GaugeMetricFamily(
            "lakestream_source_retention_used_ratio",
            "Age of the oldest unread record as a share of what the stream keeps: at 1 changes are lost",
            labels=["shard"],
        )
        counters = {
            "records": CounterMetricFamily("lakestream_source_records", "Records read from a shard", labels=["shard"]),
            "bytes": CounterMetricFamily("lakestream_source_bytes", "Bytes read from a shard", labels=["shard"]),
            "throttles": CounterMetricFamily(
                "lakestream_source_throttles", "Reads that Kinesis throttled", labels=["shard"]
            ),
            "retries": CounterMetricFamily("lakestream_source_retries", "Reads tried again", labels=["shard"]),
            "losses": CounterMetricFamily(
                "lakestream_source_losses", "Spans passed over because failOnDataLoss is false", labels=["shard"]
            ),
        }
        for shard in self._shards:
            label = [f"{shard.stream}/{shard.shard}"]
            behind.add_metric(label, shard.behind_ms)
            if shard.read_until_ms:
                read_until.add_metric(label, shard.read_until_ms / 1000)
                kept.add_metric(label, shard.retention_ms / 1000)
                used.add_metric(label, max(0.0, time.time() * 1000 - shard.read_until_ms) / shard.retention_ms)
            for name, family in counters.items():
                family.add_metric(label, getattr(shard, name))
        objects = CounterMetricFamily(
            "lakestream_source_objects", "Objects of an archive handed to batches", labels=["shard"]
        )
        strangers = GaugeMetricFamily(
            "lakestream_source_strangers",
            "Names below an archive's prefix that are none of an archive's, passed over",
            labels=["shard"],
        )
        for place, archive in self._archives.items():
            behind.add_metric([place], archive.behind_ms)
            counters["bytes"].add_metric([place], archive.bytes)
            objects.add_metric([place], archive.objects)
            strangers.add_metric([place], archive.strangers)
        yield from (behind, read_until, kept, used)
        yield from counters.values()
        if self._archives:
            yield from (objects, strangers)
