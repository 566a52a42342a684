"""The bridge behind an EventBridge pipe is watched as well as behind a mapping, and loses no more."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from templates import TEMPLATE

from bridge_lambda.metrics import NAMESPACE
from config.limits import DYNAMODB_STREAM_RETENTION_H, RETENTION_GUARD
from infra.deploy import DeploySettings, judged
from infra.template_model import Template
from infra.template_values import Values

KEY = "arn:aws:kms:us-east-1:123456789012:key/table"
FIGURES = {"LAMBDA": ("AWS/Lambda", "IteratorAge"), "PIPES": (NAMESPACE, "iterator_age_ms")}
READS_TABLE_STREAM = "dynamodb:GetRecords"


def planned(**parameters: str | int) -> Values:
    settings = DeploySettings(region="us-east-1", stack="s", parameters={"TableName": "cars", **parameters})
    return judged(settings, Template.load(TEMPLATE))


def made(values: Values, kind: str) -> dict[str, Mapping[str, Any]]:
    resources = values.template.resources.items()
    return {name: values.properties(name) for name, one in resources if one["Type"] == kind and values.exists(name)}


@pytest.mark.parametrize(("via", "figure"), FIGURES.items())
def test_whoever_calls_the_bridge_how_far_it_is_behind_is_watched(via: str, figure: tuple[str, str]) -> None:
    """Lambda measures an iterator's age for its own mappings alone; with a pipe the bridge's figure is all there is."""
    alarms = made(planned(BridgeVia=via, IteratorAgeAlarmMs=300_000), "AWS::CloudWatch::Alarm").values()
    ages = [alarm for alarm in alarms if alarm["MetricName"].lower().startswith("iterator")]
    assert {(alarm["Namespace"], alarm["MetricName"]) for alarm in ages} == {figure}
    limit_ms = DYNAMODB_STREAM_RETENTION_H * 3_600_000 * RETENTION_GUARD
    assert sorted(float(alarm["Threshold"]) for alarm in ages) == [300_000, limit_ms]


def test_a_pipe_that_cannot_call_the_bridge_is_told_of() -> None:
    """Then the bridge counts nothing, not even errors."""
    alarms = made(planned(BridgeVia="PIPES"), "AWS::CloudWatch::Alarm").values()
    assert "ExecutionFailed" in {alarm["MetricName"] for alarm in alarms}


def test_a_pipe_waits_and_gives_nothing_up() -> None:
    """It could only say where in the table's stream something was, and not for long."""
    (pipe,) = made(planned(BridgeVia="PIPES", RetriesMax=7, AgeMaxSeconds="3600"), "AWS::Pipes::Pipe").values()
    source = pipe["SourceParameters"]["DynamoDBStreamParameters"]
    assert (source["MaximumRetryAttempts"], source["MaximumRecordAgeInSeconds"]) == (-1, -1)
    assert "DeadLetterConfig" not in source


@pytest.mark.parametrize("via", ["LAMBDA", "PIPES"])
def test_whoever_reads_the_tables_stream_may_use_the_tables_own_key(via: str) -> None:
    values = planned(
        BridgeVia=via,
        ExistingTableKeyArn=KEY,
        ExistingTableStreamArn="arn:aws:dynamodb:us-east-1:123456789012:table/cars/stream/2026-01-01T00:00:00.000",
        JobPrincipalArn="arn:aws:iam::123456789012:role/databricks",
        OperatorPrincipalArn="arn:aws:iam::123456789012:role/operator",
    )
    policies = made(values, "AWS::IAM::Policy") | made(values, "AWS::IAM::Role")
    readers = {name: json.dumps(policy) for name, policy in policies.items() if READS_TABLE_STREAM in str(policy)}
    assert {"BridgePolicy", "SourcePolicy"} <= readers.keys()
    assert [name for name, policy in readers.items() if KEY not in policy] == []
