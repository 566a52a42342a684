"""The function's EMF lines as /metrics of the process that runs it."""

import json

import pytest
from aws_lambda_powertools import Metrics
from prometheus_client import CollectorRegistry

from bridge_lambda.metrics import NAMESPACE, Counts, emit
from infra.local.mapping.bridge_metrics import _COUNTERS, BridgeMetrics


def emf(counts: Counts) -> str:
    """The very line that the bridge writes."""
    metrics = Metrics(namespace=NAMESPACE, service="bridge")
    emit(metrics, counts)
    line = json.dumps(metrics.serialize_metric_set())
    metrics.clear_metrics()
    return line


def test_what_the_bridge_emits_adds_up_at_metrics() -> None:
    registry = CollectorRegistry()
    bridge = BridgeMetrics(registry)
    counts = Counts(table="cars", received=5, sent=3, dead_lettered=2, bytes=900, duration_ms=40, put_records_ms=[7, 9])
    bridge.saw(emf(counts))
    bridge.saw(emf(counts))
    for name, value in (("records_in", 10), ("records_sent", 6), ("records_dead_lettered", 4), ("bytes_sent", 1800)):
        assert registry.get_sample_value(f"lakestream_bridge_{name}_total") == value
    assert registry.get_sample_value("lakestream_bridge_put_records_seconds_count") == 4
    assert registry.get_sample_value("lakestream_bridge_duration_seconds_sum") == pytest.approx(0.08)


def test_every_count_that_the_bridge_emits_is_published() -> None:
    declared = json.loads(emf(Counts(put_records_ms=[1.0])))["_aws"]["CloudWatchMetrics"][0]["Metrics"]
    counted = {metric["Name"] for metric in declared if metric["Unit"] != "Milliseconds"}
    assert counted <= set(_COUNTERS)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "plain text",
        '{"_aws": ',
        '["_aws"]',
        '{"_aws": null, "records_in": [1]}',
        '{"_aws": {"CloudWatchMetrics": [{"Namespace": "other"}]}, "records_in": [1]}',
        '{"_aws": {"CloudWatchMetrics": [{"Namespace": "lakestream"}]}, "records_in": ["x", -1, null]}',
    ],
)
def test_any_other_output_counts_for_nothing(line: str) -> None:
    registry = CollectorRegistry()
    BridgeMetrics(registry).saw(line)
    assert registry.get_sample_value("lakestream_bridge_records_in_total") == 0
