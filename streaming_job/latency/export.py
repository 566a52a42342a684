"""The job's figures in CloudWatch, once a minute: what its alarm and its dashboard there look at."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol, TypeVar

import pyarrow as pa

from config.limits import CLOUDWATCH_METRICS_PER_CALL_MAX, CLOUDWATCH_VALUES_PER_METRIC_MAX
from streaming_job.health import Health
from streaming_job.latency.sketches import HopSketch
from streaming_job.latency.table import LatencyTable, of_arrow
from streaming_job.metrics import JobMetrics

NAMESPACE: Final = "lakestream"
EVERY_S: Final = 60.0
SERVICE: Final = {"service": "job"}

COUNTED: Final = {
    "lakestream_batches": "batches",
    "lakestream_changes": "changes",
    "lakestream_duplicates": "duplicates",
    "lakestream_rejects": "rejects",
    "lakestream_rescued": "rescued",
}
"""Counters, sent as what they grew by; CloudWatch's names follow the bridge's, which have no prefix either."""
STANDING: Final = {
    "lakestream_parked": "parked",
    "lakestream_refused": "refused",
    "lakestream_unproven": "unproven",
}
READY: Final = "ready"
BEHIND: Final = "source_behind_ms"
RETENTION_USED: Final = "source_retention_used"
HOP: Final = "hop_ms"
NEGATIVE: Final = "hop_negative"

Datum = dict[str, Any]
T = TypeVar("T")
Labels = tuple[tuple[str, str], ...]


class CloudWatch(Protocol):
    """The one call of boto3's client."""

    def put_metric_data(self, *, Namespace: str, MetricData: Sequence[Datum]) -> Any: ...  # noqa: N803 - AWS' names


class CloudWatchExport:
    """What could not be sent is sent with the next minute's: counters by their growth, hops by merging."""

    def __init__(
        self, cloudwatch: CloudWatch, metrics: JobMetrics, health: Health, on_failure: Callable[[Exception], None]
    ) -> None:
        self._cloudwatch = cloudwatch
        self._metrics = metrics
        self._health = health
        self._on_failure = on_failure
        self._sent: dict[tuple[str, Labels], float] = {}
        self._lock = threading.Lock()
        self._hops: dict[tuple[str, str], HopSketch] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cloudwatch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread and send what is left."""
        self._stopping.set()
        self._thread.join()
        self.send()

    def measured(self, hops: Mapping[tuple[str, str], HopSketch]) -> None:
        with self._lock:
            for key, sketch in hops.items():
                self._hops.setdefault(key, HopSketch()).merge(sketch)

    def send(self) -> None:
        with self._lock:
            hops, self._hops = self._hops, {}
        counted = dict(self._counted())
        now = datetime.now(UTC)
        data = [{**datum, "Timestamp": now} for datum in (*self._grown(counted), *self._standing(), *_of_hops(hops))]
        try:
            for call in _parts(data, CLOUDWATCH_METRICS_PER_CALL_MAX):
                self._cloudwatch.put_metric_data(Namespace=NAMESPACE, MetricData=call)
        except Exception as error:  # noqa: BLE001 - whatever the call can fail with, the job's work goes on
            self.measured(hops)
            self._on_failure(error)
            return
        self._sent = counted

    def _counted(self) -> Iterator[tuple[tuple[str, Labels], float]]:
        for family in self._metrics.registry.collect():
            if family.name in COUNTED:
                for sample in family.samples:
                    if sample.name.endswith("_total"):
                        yield (COUNTED[family.name], tuple(sample.labels.items())), sample.value

    def _grown(self, counted: Mapping[tuple[str, Labels], float]) -> Iterator[Datum]:
        for (name, labels), value in counted.items():
            yield _datum(name, dict(labels), "Count", Value=value - self._sent.get((name, labels), 0.0))

    def _standing(self) -> Iterator[Datum]:
        yield _datum(READY, {}, "Count", Value=1.0 if self._health.verdict().healthy else 0.0)
        worst: dict[str, float] = {}
        for family in self._metrics.registry.collect():
            if family.name in STANDING:
                for sample in family.samples:
                    yield _datum(STANDING[family.name], sample.labels, "Count", Value=sample.value)
            elif family.samples:
                worst[family.name] = max(sample.value for sample in family.samples)
        if (behind_ms := worst.get("lakestream_source_behind_ms")) is not None:
            yield _datum(BEHIND, {}, "Milliseconds", Value=behind_ms)
        if (used := worst.get("lakestream_source_retention_used_ratio")) is not None:
            yield _datum(RETENTION_USED, {}, "Percent", Value=used * 100)

    def _run(self) -> None:
        while not self._stopping.wait(EVERY_S):
            self.send()


class ExportedLatencyTable:
    """A latency table whose every flush, once written, is measured for CloudWatch too."""

    def __init__(self, table: LatencyTable, export: CloudWatchExport) -> None:
        self._table = table
        self._export = export

    def append(self, rows: pa.Table) -> None:
        self._table.append(rows)
        self._export.measured(of_arrow(rows))

    def batches_since(self, moment: datetime) -> list[str]:
        return self._table.batches_since(moment)


def _of_hops(hops: Mapping[tuple[str, str], HopSketch]) -> Iterator[Datum]:
    """Whole distributions, so that CloudWatch computes percentiles over any period and any number of jobs."""
    for (table, hop), sketch in hops.items():
        labels = {"table": table, "hop": hop}
        # CloudWatch has no percentiles of a set with values below zero: those are a count of their own.
        bins = [a_bin for a_bin in sketch.bins() if a_bin.value_ms >= 0]
        for part in _parts(bins, CLOUDWATCH_VALUES_PER_METRIC_MAX):
            values, counts = [a_bin.value_ms for a_bin in part], [float(a_bin.count) for a_bin in part]
            yield _datum(HOP, labels, "Milliseconds", Values=values, Counts=counts)
        yield _datum(NEGATIVE, labels, "Count", Value=float(sketch.negative))


def _parts(whole: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (whole[start : start + size] for start in range(0, len(whole), size))


def _datum(name: str, labels: Mapping[str, str], unit: str, **value: Any) -> Datum:
    dimensions = [{"Name": key, "Value": text} for key, text in (SERVICE | dict(labels)).items()]
    return {"MetricName": name, "Dimensions": dimensions, "Unit": unit, **value}
