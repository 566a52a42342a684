"""Alarms reach somebody: they look at AWS's own figures under the dimensions that AWS publishes them with - under any
others there is never a point - and their topic takes what they say.
"""

from collections.abc import Mapping
from typing import Any

import pytest
from templates import TEMPLATE

from bridge_lambda.metrics import NAMESPACE
from infra.deploy import DeploySettings, judged
from infra.template_model import Template

PUBLISHED: Mapping[tuple[str, str], set[str]] = {
    ("AWS/Lambda", "IteratorAge"): {"FunctionName"},
    ("AWS/Lambda", "Errors"): {"FunctionName"},
    ("AWS/Lambda", "Throttles"): {"FunctionName"},
    ("AWS/Lambda", "OnFailureDestinationDeliveredEventCount"): {"EventSourceMappingUUID"},
    ("AWS/Lambda", "DroppedEventCount"): {"EventSourceMappingUUID"},
    ("AWS/EventBridge/Pipes", "ExecutionFailed"): {"PipeName"},
    ("AWS/Kinesis", "WriteProvisionedThroughputExceeded"): {"StreamName"},
    ("AWS/Kinesis", "ReadProvisionedThroughputExceeded"): {"StreamName"},
    ("AWS/Kinesis", "GetRecords.IteratorAgeMilliseconds"): {"StreamName"},
    ("AWS/Firehose", "DeliveryToS3.DataFreshness"): {"DeliveryStreamName"},
    ("AWS/SQS", "ApproximateAgeOfOldestMessage"): {"QueueName"},
}
"""Each service's documentation of its metrics; what a figure has more of is left out."""

REGION = "us-east-1"
RESOURCES = Template.load(TEMPLATE).resources
ALARMS: Mapping[str, Mapping[str, Any]] = {
    name: resource["Properties"] for name, resource in RESOURCES.items() if resource["Type"] == "AWS::CloudWatch::Alarm"
}


@pytest.mark.parametrize("name", [name for name, alarm in ALARMS.items() if alarm["Namespace"] != NAMESPACE])
def test_an_alarm_on_a_figure_of_aws_names_the_dimensions_it_is_published_under(name: str) -> None:
    alarm = ALARMS[name]
    named = [dimension["Name"] for dimension in alarm["Dimensions"]]
    assert set(named) == PUBLISHED[alarm["Namespace"], alarm["MetricName"]]
    assert len(named) == len(set(named))


def test_whatever_the_mapping_does_with_what_it_gives_up_somebody_is_told() -> None:
    """Parked in the bucket, or dropped since the bucket refused it; the mapping counts both only when asked to."""
    told = {alarm["MetricName"] for alarm in ALARMS.values()}
    assert {"OnFailureDestinationDeliveredEventCount", "DroppedEventCount"} <= told
    assert RESOURCES["BridgeMapping"]["Properties"]["MetricsConfig"] == {"Metrics": ["EventCount"]}


@pytest.mark.parametrize(
    ("given", "key"), [("", "<DataKey.Arn>"), (f"arn:aws:kms:{REGION}:123456789012:key/mine", None)]
)
def test_alarms_go_through_a_topic_whose_key_lets_cloudwatch_write(given: str, key: str | None) -> None:
    """Ours does; what the policy of somebody else's says nobody here can know, and a refused alarm is silent."""
    settings = DeploySettings(region=REGION, stack="s", parameters={"ExistingDataKeyArn": given})
    assert judged(settings, Template.load(TEMPLATE)).properties("Alarms").get("KmsMasterKeyId") == key
    principals = [
        statement.get("Principal")
        for statement in RESOURCES["DataKey"]["Properties"]["KeyPolicy"]["Statement"]
        if "kms:GenerateDataKey" in statement["Action"]
    ]
    assert {"Service": "cloudwatch.amazonaws.com"} in principals
