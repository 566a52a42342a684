"""template.yaml itself, deployed to the emulator; what was deployed, read back; and what the emulator would do wrong
with it, taken out of its hands.
"""

import functools
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from botocore.exceptions import ClientError

from infra import validate
from infra.artefact import Artefact, own_files
from infra.local.checks import ROOT
from infra.local.dropped import DROPPED, HANDLED, apply_dropped
from infra.local.emulator import Clients, isolated_session
from infra.local.errors import NotPossibleError, NotReadyError
from infra.template_model import Template
from infra.template_values import Values

_BOOTSTRAP: Final = ROOT / "infra" / "bootstrap.yaml"
_CAPABILITIES: Final = ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"]
_ACCOUNT: Final = "000000000000"
_ANY_REGION: Final = "us-east-1"
_LOOK_EVERY_S: Final = 0.05
_WITHIN_S: Final = 60.0


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


def validated(template: Template, given: Mapping[str, object], *, stack: str, region: str) -> Values:
    """Everything that can be judged without a call; the local stack does it before its first process starts."""
    parameters = template.parameters({"ArtefactBucket": "later", "ArtefactKey": "later", **given})
    if parameters["BridgeVia"] != "LAMBDA":
        raise NotPossibleError("the local stack runs event source mappings, not pipes", hint="leave BridgeVia LAMBDA")
    if existing := [name for name, value in parameters.items() if name.startswith("Existing") and value]:
        raise NotPossibleError(
            f"the local stack begins anew and finds nothing to reuse for {existing[0]}", hint="leave it empty"
        )
    values = Values(template, parameters, _pseudo(stack, region))
    validate.check_values(values)
    validate.check_emulator(values, HANDLED, DROPPED)
    validate.check_region(values, region, _regions_of)
    return values


@functools.cache
def _regions_of(service: str) -> list[str]:
    return isolated_session(_ANY_REGION).get_available_regions(service)


def deploy(clients: Clients, values: Values, *, stack: str, rules: Path) -> Deployed:
    validate.check_stack_settled(clients, stack)
    validate.check_names_free(clients, values)
    bucket, key = _upload_artefact(clients, stack, rules)
    parameters = {**values.parameters, "ArtefactBucket": bucket, "ArtefactKey": key}
    outputs = _create(clients, stack, values.template, parameters)
    made = Values(values.template, parameters, values.pseudo, *_physical(clients, stack))
    apply_dropped(clients, made)
    deployed = _read_back(clients, outputs, parameters["TableTtlAttribute"] or None)
    _take_over(clients, deployed)
    return deployed


def _upload_artefact(clients: Clients, stack: str, rules: Path) -> tuple[str, str]:
    """The function's own code, without its libraries: here the local mapping runs it, in this environment."""
    bucket = _create(clients, f"{stack}-artefacts", Template.load(_BOOTSTRAP), {})["ArtefactBucket"]
    artefact = Artefact(own_files(json.loads(rules.read_text(encoding="utf-8"))))
    clients("s3").put_object(Bucket=bucket, Key=artefact.key, Body=artefact.zipped())
    return bucket, artefact.key


def _create(clients: Clients, stack: str, template: Template, parameters: Mapping[str, str]) -> dict[str, str]:
    """Makes the stack, waits, and returns its outputs; the first failure of a resource is the reason given."""
    cloudformation = clients("cloudformation")
    try:
        cloudformation.create_stack(
            StackName=stack,
            TemplateBody=template.body,
            Capabilities=_CAPABILITIES,
            Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()],
        )
    except ClientError as error:
        raise NotReadyError(f"{template.path.name} is refused: {error.response['Error']['Message']}") from error
    deadline = time.monotonic() + _WITHIN_S
    while (state := cloudformation.describe_stacks(StackName=stack)["Stacks"][0])["StackStatus"].endswith("_PROGRESS"):
        if time.monotonic() > deadline:
            raise NotReadyError(f"stack {stack} is not deployed after {_WITHIN_S:g} s", hint="see the emulator's log")
        time.sleep(_LOOK_EVERY_S)
    if state["StackStatus"] != "CREATE_COMPLETE":
        raise NotReadyError(f"stack {stack} came to {state['StackStatus']}: {_why(cloudformation, stack)}")
    return {output["OutputKey"]: output["OutputValue"] for output in state.get("Outputs", ())}


def _why(cloudformation: Any, stack: str) -> str:
    events = cloudformation.describe_stack_events(StackName=stack)["StackEvents"]
    failed = [event for event in events if event["ResourceStatus"].endswith("CREATE_FAILED")]
    if not failed:
        return "no resource says why"
    return f"{failed[-1]['LogicalResourceId']}: {failed[-1].get('ResourceStatusReason', 'no reason given')}"


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


def _pseudo(stack: str, region: str) -> dict[str, str]:
    return {
        "AWS::StackName": stack,
        "AWS::Region": region,
        "AWS::AccountId": _ACCOUNT,
        "AWS::Partition": "aws",
        "AWS::URLSuffix": "amazonaws.com",
    }
