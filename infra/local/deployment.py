"""template.yaml itself, deployed to the emulator; what was deployed, read back; and what the emulator would do wrong
with it, taken out of its hands.
"""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from infra import validate
from infra.artefact import Artefact, own_files
from infra.deploy import DeployError, Deployment, DeploySettings, judged
from infra.local.dropped import DROPPED, HANDLED, apply_dropped
from infra.local.emulator import Clients, isolated_session
from infra.local.errors import NotPossibleError, NotReadyError
from infra.template_model import Template
from infra.template_values import Values

_ANY_REGION: Final = "us-east-1"


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """What the template became, as AWS's own descriptions tell it."""

    table: str
    stream: str
    bucket: str
    dead_letter_bucket: str
    mapping: Mapping[str, Any]
    """One entry of ListEventSourceMappings."""
    function: Mapping[str, Any]
    """GetFunctionConfiguration."""
    delivery: Mapping[str, Any]
    """DescribeDeliveryStream's S3 destination."""
    ttl_attribute: str | None


def validated(template: Template, settings: DeploySettings) -> Values:
    """Everything that can be judged without a call; the local stack does it before its first process starts."""
    values = judged(settings, template, regions_of=_regions_of)
    if values.parameters["BridgeVia"] != "LAMBDA":
        raise NotPossibleError("the local stack runs event source mappings, not pipes", hint="leave BridgeVia LAMBDA")
    if existing := [name for name, value in values.parameters.items() if name.startswith("Existing") and value]:
        raise NotPossibleError(
            f"the local stack begins anew and finds nothing to reuse for {existing[0]}", hint="leave it empty"
        )
    if values.parameters["ArrivalJobId"]:
        raise NotPossibleError(
            "the local stack has no Databricks that could run a job", hint="leave ArrivalJobId empty"
        )
    validate.check_emulator(values, HANDLED, DROPPED)
    return values


@functools.cache
def _regions_of(service: str) -> list[str]:
    return isolated_session(_ANY_REGION).get_available_regions(service)


def deploy(clients: Clients, values: Values, settings: DeploySettings, *, rules: Path) -> Deployed:
    """As `lakestream deploy` does it; the function's own code goes without its libraries: here the local mapping runs
    it, in this environment.
    """
    artefact = Artefact(own_files(json.loads(rules.read_text(encoding="utf-8"))))
    deployment = Deployment(settings, values, clients, artefact)
    try:
        outputs = deployment.execute(deployment.plan(), lambda _: None)
    except DeployError as error:
        raise NotReadyError(error.what, hint="the emulator made nothing of it that lasts") from error
    made = Values(values.template, values.parameters, values.pseudo, *_physical(clients, settings.stack))
    apply_dropped(clients, made)
    deployed = _read_back(clients, outputs, values.parameters["TableTtlAttribute"] or None)
    _take_over(clients, deployed)
    return deployed


def _physical(clients: Clients, stack: str) -> tuple[dict[str, str], dict[str, str]]:
    """What Ref and, for keys, GetAtt Arn come to."""
    resources = clients("cloudformation").describe_stack_resources(StackName=stack)["StackResources"]
    physical = {resource["LogicalResourceId"]: resource["PhysicalResourceId"] for resource in resources}
    keys = {
        f"{resource['LogicalResourceId']}.Arn": clients("kms").describe_key(KeyId=resource["PhysicalResourceId"])[
            "KeyMetadata"
        ]["Arn"]
        for resource in resources
        if resource["ResourceType"] == "AWS::KMS::Key"
    }
    return physical, keys


def _read_back(clients: Clients, outputs: Mapping[str, str], ttl_attribute: str | None) -> Deployed:
    lambda_ = clients("lambda")
    (mapping,) = lambda_.list_event_source_mappings(FunctionName=outputs["BridgeName"])["EventSourceMappings"]
    delivery = clients("firehose").describe_delivery_stream(DeliveryStreamName=outputs["DeliveryStreamName"])
    (destination,) = delivery["DeliveryStreamDescription"]["Destinations"]
    return Deployed(
        table=outputs["TableName"],
        stream=outputs["StreamName"],
        bucket=outputs["BucketName"],
        dead_letter_bucket=outputs["DeadLetterBucketName"],
        mapping=mapping,
        function=lambda_.get_function_configuration(FunctionName=outputs["BridgeName"]),
        delivery=destination["ExtendedS3DestinationDescription"],
        ttl_attribute=ttl_attribute,
    )


def _take_over(clients: Clients, deployed: Deployed) -> None:
    """The emulator's own mapping retries without end and drops what batchItemFailures names; its Firehose writes one
    object a record. The mapping stays, disabled; the delivery stream has no such state and goes.
    """
    clients("lambda").update_event_source_mapping(UUID=deployed.mapping["UUID"], Enabled=False)
    streams = clients("firehose")
    for name in streams.list_delivery_streams()["DeliveryStreamNames"]:
        streams.delete_delivery_stream(DeliveryStreamName=name)
