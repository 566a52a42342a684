"""What one invocation did, as EMF metrics: CloudWatch reads them from the log, no call is made."""

from dataclasses import dataclass, field
from typing import Final

from aws_lambda_powertools import Metrics
from aws_lambda_powertools.metrics import MetricUnit

from bridge_lambda.publisher import Published

NAMESPACE: Final = "lakestream"
_VALUES_MAX: Final = 100
"""Of one metric in one EMF blob."""


@dataclass(slots=True)
class Counts:
    table: str = "unknown"
    received: int = 0
    sent: int = 0
    resent: int = 0
    failed: int = 0
    skipped: int = 0
    dead_lettered: int = 0
    claims: int = 0
    near_expiry: int = 0
    bytes: int = 0
    iterator_age_ms: int = 0
    duration_ms: float = 0.0
    put_records_ms: list[float] = field(default_factory=list)

    def add(self, published: Published, *, failed: int) -> None:
        self.sent, self.resent, self.bytes = published.sent, published.resent, published.bytes
        self.put_records_ms = published.put_ms
        self.failed = failed


def count_refusal(metrics: Metrics) -> None:
    """A batch that failed as a whole."""
    metrics.add_metric(name="batches_refused", unit=MetricUnit.Count, value=1)


def emit(metrics: Metrics, counts: Counts) -> None:
    metrics.add_dimension(name="table", value=counts.table)
    for name, number in (
        ("records_in", counts.received),
        ("records_sent", counts.sent),
        ("records_resent", counts.resent),
        ("records_failed", counts.failed),
        ("records_skipped", counts.skipped),
        ("records_dead_lettered", counts.dead_lettered),
        ("claim_checks", counts.claims),
        ("records_near_expiry", counts.near_expiry),
    ):
        metrics.add_metric(name=name, unit=MetricUnit.Count, value=number)
    metrics.add_metric(name="bytes_sent", unit=MetricUnit.Bytes, value=counts.bytes)
    metrics.add_metric(name="iterator_age_ms", unit=MetricUnit.Milliseconds, value=counts.iterator_age_ms)
    metrics.add_metric(name="duration_ms", unit=MetricUnit.Milliseconds, value=counts.duration_ms)
    for latency_ms in counts.put_records_ms[:_VALUES_MAX]:
        metrics.add_metric(name="put_records_ms", unit=MetricUnit.Milliseconds, value=latency_ms)
