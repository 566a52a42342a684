"""What the emulator takes from a template and drops, applied afterwards by API. One function a property.

Measured by reading every resource back after a deployment (tests/infra/test_template_deployed.py does it again);
`LEFT_OUT` are those that are not applied, each with why that does no harm here.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from infra.local.emulator import Clients
from infra.template_values import Values

Apply = Callable[[Clients, str, Any], None]
"""(clients, physical id, the property's value)"""


def _table_recovery(clients: Clients, table: str, wanted: Any) -> None:
    clients("dynamodb").update_continuous_backups(TableName=table, PointInTimeRecoverySpecification=wanted)


def _stream_encryption(clients: Clients, stream: str, wanted: Any) -> None:
    clients("kinesis").start_stream_encryption(
        StreamName=stream, EncryptionType=wanted["EncryptionType"], KeyId=wanted["KeyId"]
    )


def _bucket_encryption(clients: Clients, bucket: str, wanted: Any) -> None:
    rules = [
        {
            "ApplyServerSideEncryptionByDefault": rule["ServerSideEncryptionByDefault"],
            "BucketKeyEnabled": rule.get("BucketKeyEnabled", False),
        }
        for rule in wanted["ServerSideEncryptionConfiguration"]
    ]
    clients("s3").put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": rules})


def _bucket_lifecycle(clients: Clients, bucket: str, wanted: Any) -> None:
    clients("s3").put_bucket_lifecycle_configuration(
        Bucket=bucket, LifecycleConfiguration={"Rules": [_lifecycle_rule(rule) for rule in wanted["Rules"]]}
    )


def _lifecycle_rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    """CloudFormation's words for S3's own."""
    found: dict[str, Any] = {"ID": rule["Id"], "Status": rule["Status"], "Filter": {"Prefix": rule.get("Prefix", "")}}
    if "ExpirationInDays" in rule:
        found["Expiration"] = {"Days": int(rule["ExpirationInDays"])}
    if "Transitions" in rule:
        found["Transitions"] = [
            {"StorageClass": move["StorageClass"], "Days": int(move["TransitionInDays"])}
            for move in rule["Transitions"]
        ]
    for same in ("AbortIncompleteMultipartUpload", "NoncurrentVersionExpiration"):
        if same in rule:
            found[same] = {name: int(value) for name, value in rule[same].items()}
    return found


APPLIED: Final[Mapping[tuple[str, str], Apply]] = {
    ("AWS::DynamoDB::Table", "PointInTimeRecoverySpecification"): _table_recovery,
    ("AWS::Kinesis::Stream", "StreamEncryption"): _stream_encryption,
    ("AWS::S3::Bucket", "BucketEncryption"): _bucket_encryption,
    ("AWS::S3::Bucket", "LifecycleConfiguration"): _bucket_lifecycle,
}

LEFT_OUT: Final[Mapping[tuple[str, str], str]] = {
    ("AWS::DynamoDB::Table", "SSESpecification"): "nothing is encrypted at rest on this machine",
    # Applied it would do harm: the emulator's expiry removes the item and leaves nothing in the stream.
    ("AWS::DynamoDB::Table", "TimeToLiveSpecification"): "infra/local/expiries deletes what has expired instead",
    ("AWS::Lambda::EventSourceMapping", "MetricsConfig"): "the local mapping counts at its own /metrics",
    ("AWS::SNS::Topic", "KmsMasterKeyId"): "nothing is encrypted at rest on this machine",
}


def _by_type(*tables: Mapping[tuple[str, str], Any]) -> dict[str, frozenset[str]]:
    names: dict[str, set[str]] = {}
    for table in tables:
        for kind, name in table:
            names.setdefault(kind, set()).add(name)
    return {kind: frozenset(found) for kind, found in names.items()}


HANDLED: Final = _by_type(APPLIED, LEFT_OUT)
DROPPED: Final = {
    **HANDLED,
    # Neither kept nor read back: replicas and tags of a table would silently not be.
    "AWS::DynamoDB::Table": HANDLED["AWS::DynamoDB::Table"] | {"KinesisStreamSpecification", "ResourcePolicy"},
}


def apply_dropped(clients: Clients, values: Values) -> None:
    """`values` must know the physical ids and the keys' ARNs."""
    for logical_id, resource in values.template.resources.items():
        if not values.exists(logical_id):
            continue
        for name, wanted in values.properties(logical_id).items():
            if apply := APPLIED.get((resource["Type"], name)):
                apply(clients, values.physical[logical_id], wanted)
