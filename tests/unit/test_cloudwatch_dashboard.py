"""The template's CloudWatch dashboard and alarms look at figures that somebody publishes, under the same dimensions."""

import json
import re
import time
from typing import Any

import numpy as np
import pytest
from aws_lambda_powertools import Metrics
from templates import TEMPLATE

from bridge_lambda.metrics import NAMESPACE, Counts, emit
from infra.arrival import handler as arrival
from infra.deploy import DeploySettings, judged
from infra.template_model import Template
from streaming_job.health import Health
from streaming_job.kinesis.progress import platform_progress
from streaming_job.latency.book import LatencyBook
from streaming_job.latency.export import CloudWatchExport
from streaming_job.latency.hops import HOPS
from streaming_job.latency.sketches import HopSketch
from streaming_job.metrics import JobMetrics

TABLE = "cars"
Figure = tuple[str, frozenset[tuple[str, str]]]


def dashboard() -> dict[str, Any]:
    body, _ = Template.load(TEMPLATE).resources["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]
    filled: dict[str, Any] = json.loads(re.sub(r"\$\{[^}]+\}", TABLE, body))
    return filled


def spelled_out(metrics: list[list[Any]]) -> list[list[str]]:
    """CloudWatch's shorthand: `.` is what stood there in the line before, `...` the whole line."""
    lines: list[list[str]] = []
    for line in metrics:
        parts = [part for part in line if isinstance(part, str)]
        before = lines[-1] if lines else []
        lines.append(
            before if parts == ["..."] else [before[at] if part == "." else part for at, part in enumerate(parts)]
        )
    return lines


def looked_at() -> set[Figure]:
    lines = [line for widget in dashboard()["widgets"] for line in spelled_out(widget["properties"]["metrics"])]
    return {
        (name, frozenset(zip(dimensions[::2], dimensions[1::2], strict=True)))
        for namespace, name, *dimensions in lines
        if namespace == NAMESPACE
    }


class KeepingCloudWatch:
    def __init__(self) -> None:
        self.figures: set[Figure] = set()

    def put_metric_data(self, *, Namespace: str, MetricData: list[dict[str, Any]]) -> None:  # noqa: N803 - AWS' names
        assert Namespace == NAMESPACE
        for datum in MetricData:
            dimensions = frozenset((each["Name"], each["Value"]) for each in datum["Dimensions"])
            self.figures.add((datum["MetricName"], dimensions))


@pytest.fixture(scope="module")
def published() -> set[Figure]:
    """By the bridge in its EMF lines, and by the job in its calls."""
    emf = Metrics(namespace=NAMESPACE, service="bridge")
    emit(emf, Counts(table=TABLE, put_records_ms=[1.0]))
    blob = emf.serialize_metric_set()
    emf.clear_metrics()
    directive = blob["_aws"]["CloudWatchMetrics"][0]
    dimensions = frozenset((name, str(blob[name])) for name in directive["Dimensions"][0])  # type: ignore[literal-required]
    bridge = {(metric["Name"], dimensions) for metric in directive["Metrics"]}

    health, kept = Health(60), KeepingCloudWatch()
    metrics = JobMetrics(LatencyBook(), health)
    for family in (metrics.changes, metrics.duplicates, metrics.rescued, metrics.parked):
        family.labels(TABLE)
    metrics.source.update(platform_progress({"metrics": {"maxMsBehindLatest": "1"}}, int(time.time() * 1000)))
    export = CloudWatchExport(kept, metrics, health, pytest.fail)  # type: ignore[arg-type]
    sketch = HopSketch()
    sketch.add(np.array([1.0]))
    export.measured({(TABLE, hop.name): sketch for hop in HOPS})
    export.send()
    return bridge | kept.figures


def test_every_figure_of_ours_on_the_dashboard_is_published_with_its_dimensions(published: set[Figure]) -> None:
    assert len(looked_at()) > 12
    assert looked_at() - published == set()


def test_every_alarm_on_a_figure_of_ours_watches_one_that_is_published(published: set[Figure]) -> None:
    """Under its dimensions, in a stack that has all of these alarms."""
    secret = "arn:aws:secretsmanager:us-east-1:123456789012:secret:token"
    arriving = {"ArrivalJobId": "1", "DatabricksHost": "https://x", "DatabricksTokenSecretArn": secret}
    parameters: dict[str, str | int | bool] = {
        "TableName": TABLE,
        "BridgeVia": "PIPES",
        "JobSilentMinutes": 5,
        **arriving,
    }
    settings = DeploySettings(region="us-east-1", stack="s", parameters=parameters)
    values = judged(settings, Template.load(TEMPLATE))
    alarms = [
        values.properties(name)
        for name, resource in values.template.resources.items()
        if resource["Type"] == "AWS::CloudWatch::Alarm" and resource["Properties"]["Namespace"] == NAMESPACE
    ]
    watched = {
        (alarm["MetricName"], frozenset((each["Name"], each["Value"]) for each in alarm["Dimensions"]))
        for alarm in alarms
    }
    assert len(watched) >= 6
    assert watched - published == {("token_refused", frozenset({("service", "arrival")}))}
    assert "token_refused" in arrival.COUNTED


def test_no_two_widgets_of_the_dashboard_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for widget in dashboard()["widgets"]:
        assert widget["x"] + widget["width"] <= 24
        cells = {(widget["x"] + x, widget["y"] + y) for x in range(widget["width"]) for y in range(widget["height"])}
        assert not cells & taken
        taken |= cells
