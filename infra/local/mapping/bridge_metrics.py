"""What the function says of itself, as /metrics: CloudWatch reads its EMF lines from the log, here nobody else does."""

import json
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Histogram

from bridge_lambda.metrics import NAMESPACE

_COUNTERS: Final = {
    "records_in": "Changes the function was handed",
    "records_sent": "Changes Kinesis acknowledged",
    "records_resent": "Changes sent again after a call that failed in part",
    "records_failed": "Changes reported back as not sent in time",
    "records_skipped": "Changes the table's rules leave out",
    "records_dead_lettered": "Changes set aside as dead letters",
    "claim_checks": "Images too large for a record, stored beside it",
    "records_near_expiry": "Changes that arrived near the end of the stream's retention",
    "bytes_sent": "Bytes of records acknowledged",
    "batches_refused": "Events that failed as a whole",
}
_DURATIONS: Final = {
    "duration_ms": "Duration of an invocation, in seconds",
    "put_records_ms": "Duration of a PutRecords call, in seconds",
}
_BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class BridgeMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._counters = {
            name: Counter(f"lakestream_bridge_{name}", says, registry=registry) for name, says in _COUNTERS.items()
        }
        self._durations = {
            name: Histogram(
                f"lakestream_bridge_{name.removesuffix('_ms')}_seconds", says, buckets=_BUCKETS_S, registry=registry
            )
            for name, says in _DURATIONS.items()
        }

    def saw(self, line: str) -> None:
        """A line of the function's output; any but an EMF blob of ours says nothing here."""
        if '"_aws"' not in line:
            return
        try:
            blob = json.loads(line)
        except ValueError:
            return
        if not isinstance(blob, dict) or NAMESPACE not in _namespaces(blob):
            return
        for name, counter in self._counters.items():
            for value in _values(blob.get(name)):
                counter.inc(value)
        for name, histogram in self._durations.items():
            for value in _values(blob.get(name)):
                histogram.observe(value / 1000)


def _namespaces(blob: dict[str, Any]) -> set[str]:
    directives = (blob["_aws"] or {}).get("CloudWatchMetrics", []) if isinstance(blob.get("_aws"), dict) else []
    return {str(directive.get("Namespace")) for directive in directives if isinstance(directive, dict)}


def _values(given: object) -> list[float]:
    """EMF allows one number or a list of them."""
    many = given if isinstance(given, list) else [given]
    return [float(value) for value in many if isinstance(value, int | float) and value >= 0]
