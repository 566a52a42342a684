"""What a deployment asks for, judged before anything is changed: what AWS would refuse half way, and what an emulator
would take without a word and not do.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from botocore.exceptions import ClientError

from config import limits
from config.errors import LakestreamError
from config.tables import TableConfig
from infra.template_values import Values

Clients = Callable[[str], Any]


class NotDeployableError(LakestreamError):
    """The deployment cannot be, and nothing was changed."""

    exit_code = 2


_SETTLED: Final = frozenset(
    {"CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "IMPORT_COMPLETE", "IMPORT_ROLLBACK_COMPLETE"}
)
_GONE: Final = frozenset({"DELETE_COMPLETE", "REVIEW_IN_PROGRESS"})

_SERVICES: Final[Mapping[str, str]] = {
    "AWS::DynamoDB": "dynamodb",
    "AWS::Kinesis": "kinesis",
    "AWS::KinesisFirehose": "firehose",
    "AWS::KMS": "kms",
    "AWS::Lambda": "lambda",
    "AWS::Pipes": "pipes",
    "AWS::Serverless": "lambda",
    "AWS::SNS": "sns",
    "AWS::SQS": "sqs",
}
"""Those that AWS does not offer everywhere, by the first part of the resource type."""

EMULATOR_REFUSES: Final[Mapping[str, str]] = {
    "AWS::ApplicationAutoScaling::ScalableTarget": "use ON_DEMAND, or scale by hand",
    "AWS::ApplicationAutoScaling::ScalingPolicy": "use ON_DEMAND, or scale by hand",
    "AWS::Athena::NamedQuery": "keep the query beside the code",
    "AWS::CloudWatch::AnomalyDetector": "use a threshold",
    "AWS::CloudWatch::CompositeAlarm": "use alarms of one metric",
    "AWS::Kinesis::ResourcePolicy": "set it by API",
    "AWS::Kinesis::StreamConsumer": "register it by API",
}


def check_values(values: Values) -> None:
    """The resources that would be made, with every expression worked out."""
    if values.parameters.get("ArrivalJobId"):
        for needed in ("DatabricksHost", "DatabricksTokenSecretArn"):
            if not values.parameters[needed]:
                raise NotDeployableError(f"ArrivalJobId is given and {needed} is not", hint="give both, or neither")
    for logical_id, resource in _made(values):
        kind = str(resource["Type"])
        properties = values.properties(logical_id)
        if kind == "AWS::Kinesis::Stream":
            _check_stream(logical_id, properties)


def table_of(values: Values) -> str:
    """The source table's name, made or reused."""
    stream = values.parameters["ExistingTableStreamArn"]
    return stream.split("/")[1] if stream else values.parameters["TableName"]


def check_rules(values: Values, known: Mapping[str, TableConfig]) -> None:
    """Without rules every change would be a dead letter; without the secret they hash with no bridge would start."""
    table = table_of(values)
    if table not in known:
        raise NotDeployableError(
            f"there are no rules for table {table}", hint=f"add config/tables/{table}.yaml; there is {', '.join(known)}"
        )
    check_key(values, known[table])
    if (secret := known[table].bridge.hash_secret) and not values.parameters["HashSecretArn"]:
        raise NotDeployableError(
            f"the rules of {table} hash with secret {secret}, and HashSecretArn is empty: the bridge could not read it",
            hint="give the secret's ARN: aws secretsmanager describe-secret --secret-id " + secret,
        )


def check_key(values: Values, rules: TableConfig) -> None:
    """Of a table that the stack makes with another key than its rules say, every change would be a dead letter."""
    made = ((values.parameters["TableKeyName"], values.parameters["TableKeyType"]),)
    said = tuple((attribute.name, attribute.type) for attribute in rules.key)
    if values.parameters["ExistingTableStreamArn"] or said == made:
        return
    (name, type_), *more = said
    if more:
        hint = (
            "this stack makes no composite key: make the table yourself and name its stream in ExistingTableStreamArn"
        )
    else:
        hint = f"deploy with TableKeyName {name}, TableKeyType {type_}, or correct the rules"
    raise NotDeployableError(
        f"table {rules.table} would get the key {_listed(made)}, and its rules say {_listed(said)}", hint=hint
    )


def _listed(key: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"{name} ({type_})" for name, type_ in key)


def _check_stream(logical_id: str, properties: Mapping[str, Any]) -> None:
    hours = int(properties.get("RetentionPeriodHours", limits.KINESIS_RETENTION_H_MIN))
    if not limits.KINESIS_RETENTION_H_MIN <= hours <= limits.KINESIS_RETENTION_H_MAX:
        raise NotDeployableError(
            f"{logical_id}: a retention of {hours} hours cannot be",
            hint=f"from {limits.KINESIS_RETENTION_H_MIN} to {limits.KINESIS_RETENTION_H_MAX}",
        )
    if "ShardCount" in properties and int(properties["ShardCount"]) < 1:
        raise NotDeployableError(f"{logical_id}: {properties['ShardCount']} shards cannot be", hint="1 or more")


def check_emulator(
    values: Values, handled: Mapping[str, frozenset[str]], dropped: Mapping[str, frozenset[str]]
) -> None:
    """Types the emulator refuses, and properties it takes and drops that nobody applies afterwards."""
    for logical_id, resource in _made(values):
        kind = str(resource["Type"])
        if kind in EMULATOR_REFUSES:
            raise NotDeployableError(f"{logical_id}: the emulator refuses {kind}", hint=EMULATOR_REFUSES[kind])
        properties = values.properties(logical_id)
        if kind == "AWS::CloudWatch::Alarm" and "Metrics" in properties:
            raise NotDeployableError(
                f"{logical_id}: the emulator refuses alarms on metric math", hint="name one metric, or use a mapping"
            )
        lost = dropped.get(kind, frozenset()) & properties.keys() - handled.get(kind, frozenset())
        if lost:
            raise NotDeployableError(
                f"{logical_id}: the emulator drops {', '.join(sorted(lost))}", hint="apply it in infra/local/dropped.py"
            )


def check_region(values: Values, region: str, regions_of: Callable[[str], list[str]]) -> None:
    """`regions_of` a service is botocore's own list; a region it does not know at all is not judged."""
    if not any(region in regions_of(service) for service in ("dynamodb", "s3")):
        raise NotDeployableError(f"there is no region {region!r}", hint="spelled as in us-east-1")
    for logical_id, resource in _made(values):
        service = _SERVICES.get("::".join(str(resource["Type"]).split("::")[:2]))
        if service and region not in regions_of(service):
            raise NotDeployableError(
                f"{logical_id}: region {region} has no {service}", hint="choose another region, or BridgeVia LAMBDA"
            )


def check_stack_settled(clients: Clients, stack: str) -> bool:
    """Whether the stack exists; an error when it is at work or stuck half way."""
    status = stack_status(clients, stack)
    if status is None or status in _GONE:
        return False
    if status in _SETTLED:
        return True
    if status.endswith("_IN_PROGRESS"):
        raise NotDeployableError(f"stack {stack} is at work ({status})", hint="wait until it is done")
    if status == "UPDATE_ROLLBACK_FAILED":
        hint = f"aws cloudformation continue-update-rollback --stack-name {stack}"
    else:
        hint = f"it never came up: aws cloudformation delete-stack --stack-name {stack}, then deploy again"
    raise NotDeployableError(f"stack {stack} is half rolled back ({status})", hint=hint)


def stack_status(clients: Clients, stack: str) -> str | None:
    try:
        return str(clients("cloudformation").describe_stacks(StackName=stack)["Stacks"][0]["StackStatus"])
    except ClientError as error:
        if error.response["Error"]["Code"] == "ValidationError":
            return None
        raise


def check_table_stream(clients: Clients, stream_arn: str) -> None:
    """An existing table's stream must carry both images: with keys alone there is nothing to send."""
    try:
        found = clients("dynamodbstreams").describe_stream(StreamArn=stream_arn)["StreamDescription"]
    except ClientError as error:
        raise NotDeployableError(
            f"stream {stream_arn} cannot be read: {error.response['Error']['Code']}",
            hint="name the table's LatestStreamArn",
        ) from error
    view = found["StreamViewType"]
    if view != "NEW_AND_OLD_IMAGES":
        raise NotDeployableError(
            f"stream {stream_arn} shows {view}, NEW_AND_OLD_IMAGES is needed",
            hint="make the table's stream anew; that begins a new generation, so run a snapshot and verify after it",
        )


def check_names_free(clients: Clients, values: Values) -> None:
    """Before a first deployment: a stack that fails on a taken name deletes, rolling back, what it believes its own."""
    for logical_id, resource in _made(values):
        properties = values.properties(logical_id)
        taken = None
        match resource["Type"]:
            case "AWS::Serverless::Function":
                taken = properties["FunctionName"]
                known = _answers(lambda: clients("lambda").get_function(FunctionName=taken))  # noqa: B023 - called at once
            case "AWS::DynamoDB::Table":
                taken = properties["TableName"]
                known = _answers(lambda: clients("dynamodb").describe_table(TableName=taken))  # noqa: B023 - called at once
            case "AWS::KinesisFirehose::DeliveryStream":
                taken = properties["DeliveryStreamName"]
                known = _answers(
                    lambda: clients("firehose").describe_delivery_stream(DeliveryStreamName=taken)  # noqa: B023 - called at once
                )
            case _:
                continue
        if known:
            hint = "reuse it by its Existing… parameter" if logical_id == "Table" else "choose another stack name"
            raise NotDeployableError(f"{logical_id}: {taken} exists already", hint=hint)


def _answers(question: Callable[[], Any]) -> bool:
    try:
        question()
    except ClientError as error:
        if error.response["Error"]["Code"] == "ResourceNotFoundException":
            return False
        raise
    return True


def _made(values: Values) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for logical_id, resource in values.template.resources.items():
        if values.exists(logical_id):
            yield logical_id, resource
