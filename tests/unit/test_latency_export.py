"""What the job tells CloudWatch, held against the service's own model of the call."""

import time
from collections.abc import Sequence
from typing import Any

import boto3
import numpy as np
import pyarrow as pa
import pytest
from botocore.validate import ParamValidator

from config.limits import CLOUDWATCH_VALUES_PER_METRIC_MAX
from streaming_job.health import Health
from streaming_job.kinesis.progress import ShardProgress, platform_progress, shard_progress
from streaming_job.latency.book import LatencyBook
from streaming_job.latency.export import (
    BEHIND,
    HOP,
    NEGATIVE,
    READY,
    RETENTION_USED,
    CloudWatchExport,
    ExportedLatencyTable,
)
from streaming_job.latency.hops import WHOLE
from streaming_job.latency.sketches import HopSketch
from streaming_job.metrics import JobMetrics

_CLIENT = boto3.client("cloudwatch", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
_SHAPE = _CLIENT.meta.service_model.operation_model("PutMetricData").input_shape


class RecordingCloudWatch:
    """Keeps what it was sent, refuses what the service's model does, and fails when told to."""

    def __init__(self) -> None:
        self.data: list[dict[str, Any]] = []
        self.fails = False

    def put_metric_data(self, *, Namespace: str, MetricData: Sequence[dict[str, Any]]) -> None:  # noqa: N803 - AWS' names
        assert Namespace == "lakestream"
        report = ParamValidator().validate({"Namespace": Namespace, "MetricData": list(MetricData)}, _SHAPE)
        assert not report.has_errors(), report.generate_report()
        if self.fails:
            raise ConnectionError("unreachable")
        self.data += MetricData

    def sent(self, name: str, **labels: str) -> list[dict[str, Any]]:
        wanted = {"service": "job", **labels}
        return [
            datum
            for datum in self.data
            if datum["MetricName"] == name and {d["Name"]: d["Value"] for d in datum["Dimensions"]} == wanted
        ]

    def total(self, name: str, **labels: str) -> float:
        return sum(datum["Value"] for datum in self.sent(name, **labels))


class Rig:
    def __init__(self) -> None:
        self.cloudwatch = RecordingCloudWatch()
        self.health = Health(60)
        self.metrics = JobMetrics(LatencyBook(), self.health)
        self.failures: list[Exception] = []
        self.export = CloudWatchExport(self.cloudwatch, self.metrics, self.health, self.failures.append)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def sketch(durations: Sequence[float]) -> HopSketch:
    made = HopSketch()
    made.add(np.array(durations, dtype=np.float64))
    return made


def test_counters_are_sent_as_what_they_grew_by(rig: Rig) -> None:
    rig.metrics.batches.inc(3)
    rig.metrics.changes.labels("cars").inc(10)
    rig.export.send()
    rig.metrics.changes.labels("cars").inc(5)
    rig.export.send()
    assert [datum["Value"] for datum in rig.cloudwatch.sent("changes", table="cars")] == [10, 5]
    assert [datum["Value"] for datum in rig.cloudwatch.sent("batches")] == [3, 0]


def test_a_minute_that_could_not_be_sent_is_in_the_next(rig: Rig) -> None:
    rig.metrics.changes.labels("cars").inc(10)
    rig.export.measured({("cars", WHOLE): sketch([100, 200])})
    rig.cloudwatch.fails = True
    rig.export.send()
    assert (len(rig.failures), rig.cloudwatch.data) == (1, [])
    rig.cloudwatch.fails = False
    rig.export.measured({("cars", WHOLE): sketch([300])})
    rig.export.send()
    assert rig.cloudwatch.total("changes", table="cars") == 10
    (hop,) = rig.cloudwatch.sent(HOP, table="cars", hop=WHOLE)
    assert sum(hop["Counts"]) == 3
    assert hop["Values"] == pytest.approx([100, 200, 300], rel=0.01)


def test_a_wide_distribution_is_sent_in_parts_that_the_service_takes(rig: Rig) -> None:
    durations = np.geomspace(1, 3_600_000, 5_000)
    rig.export.measured({("cars", WHOLE): sketch(durations.tolist())})
    rig.export.send()
    parts = rig.cloudwatch.sent(HOP, table="cars", hop=WHOLE)
    assert len(parts) > 1
    assert max(len(part["Values"]) for part in parts) <= CLOUDWATCH_VALUES_PER_METRIC_MAX
    assert sum(sum(part["Counts"]) for part in parts) == 5_000


def test_durations_below_zero_are_a_count_of_their_own(rig: Rig) -> None:
    rig.export.measured({("cars", WHOLE): sketch([-5, -7, 100])})
    rig.export.send()
    (hop,) = rig.cloudwatch.sent(HOP, table="cars", hop=WHOLE)
    assert sum(hop["Counts"]) == 1
    assert rig.cloudwatch.total(NEGATIVE, table="cars", hop=WHOLE) == 2


def test_readiness_is_sent_every_minute_also_when_nothing_was_committed(rig: Rig) -> None:
    rig.export.send()
    rig.health.progressed()
    rig.export.send()
    assert [datum["Value"] for datum in rig.cloudwatch.sent(READY)] == [0, 1]
    assert rig.cloudwatch.sent(BEHIND) == []


def test_how_much_of_the_retention_the_furthest_shard_has_used_up_is_sent_as_it_stands_now(rig: Rig) -> None:
    """What was read last ages by itself: a job that hangs in a batch is told of too."""
    now_ms = int(time.time() * 1000)
    nothing = {"records": 0, "bytes": 0, "throttles": 0, "retries": 0, "expired_iterators": 0, "losses": 0}
    ages_h = {"s-0": 1, "s-1": 18}
    rig.metrics.source.update(
        [
            ShardProgress("changes", shard, behind_ms=0, **nothing, read_until_ms=now_ms - age_h * 3_600_000)
            for shard, age_h in ages_h.items()
        ]
    )
    rig.export.send()
    (used,) = rig.cloudwatch.sent(RETENTION_USED)
    assert used["Unit"] == "Percent"
    assert 75 <= used["Value"] < 76


def test_a_shard_of_which_nobody_knows_how_far_it_was_read_is_no_retention_used(rig: Rig) -> None:
    rig.metrics.source.update(shard_progress({"shards": {"changes": {"s-0": unknown_progress()}}}))
    rig.export.send()
    assert rig.cloudwatch.sent(RETENTION_USED) == []
    assert len(rig.cloudwatch.sent(BEHIND)) == 1


def unknown_progress() -> dict[str, int]:
    fields = ShardProgress.__dataclass_fields__.keys() - {"stream", "shard", "read_until_ms", "retention_ms"}
    return dict.fromkeys(fields, 0) | {"read_until_ms": 0, "retention_ms": 86_400_000}


def test_the_platforms_source_says_how_far_behind_it_is_and_is_taken_for_one_that_keeps_a_day(rig: Rig) -> None:
    now_ms = int(time.time() * 1000)
    (progress,) = platform_progress({"metrics": {"maxMsBehindLatest": "21600000.0"}}, now_ms)
    assert progress.behind_ms == 21_600_000
    rig.metrics.source.update([progress])
    rig.export.send()
    (used,) = rig.cloudwatch.sent(RETENTION_USED)
    assert 25 <= used["Value"] < 26
    assert platform_progress({}, now_ms) == []


def test_a_flush_is_measured_once_it_is_written_and_not_before(rig: Rig) -> None:
    class FullDisk:
        def append(self, rows: pa.Table) -> None:
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        ExportedLatencyTable(FullDisk(), rig.export).append(pa.table({}))  # type: ignore[arg-type]
    rig.export.send()
    assert rig.cloudwatch.sent(HOP, table="cars", hop=WHOLE) == []


def test_what_is_left_is_sent_at_the_end(rig: Rig) -> None:
    rig.export.start()
    rig.metrics.rejects.inc(2)
    rig.export.stop()
    assert rig.cloudwatch.total("rejects") == 2
