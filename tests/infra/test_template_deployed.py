"""template.yaml on the emulator: all of it is made, what is dropped is applied, what runs beside it obeys it."""

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from local_stack import clients_of, configuration, local, metric
from local_workers import until
from templates import TEMPLATE

from infra import validate
from infra.deploy import DeploySettings
from infra.local.deployment import validated
from infra.local.emulator import Clients
from infra.template_model import Template
from infra.template_values import Values
from infra.validate import NotDeployableError

pytestmark = pytest.mark.stack

PARAMETERS: dict[str, str | int | bool] = {
    "BatchSize": 3,
    "WindowSeconds": 300,
    "RetriesMax": 7,
    "AgeMaxSeconds": 3600,
    "BisectOnError": False,
    "Parallelization": 2,
    "BufferSeconds": 17,
    "BufferMegabytes": 3,
    "RetentionHours": 48,
    "TimeoutSeconds": 33,
    "ArchiveDays": 123,
    "TableTtlAttribute": "expires_at",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("deployed")
    config = configuration(tmp_path_factory.mktemp("config"), parameters=PARAMETERS)
    answer = local("up", "--no-job", "--dir", folder, "--config", config)
    assert answer.code == 0, answer.err
    yield folder
    local("down", "--dir", folder)


@pytest.fixture(scope="module")
def stack(home: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((home / "stack.json").read_text())
    return content


@pytest.fixture(scope="module")
def clients(stack: Mapping[str, Any]) -> Clients:
    return clients_of(stack)


@pytest.fixture(scope="module")
def values() -> Values:
    settings = DeploySettings(region="us-east-1", stack="lakestream", parameters=PARAMETERS)
    return validated(Template.load(TEMPLATE), settings)


def settings(home: Path, worker: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((home / f"{worker}.json").read_text())
    return content


# --- what was made ----------------------------------------------------------------------------------------------------


def test_every_resource_of_the_template_is_made_and_none_by_hand(clients: Clients, values: Values) -> None:
    made = clients("cloudformation").describe_stack_resources(StackName="lakestream")["StackResources"]
    wanted = {name for name in values.template.resources if values.exists(name)}
    assert {resource["LogicalResourceId"] for resource in made} == wanted
    assert {resource["ResourceStatus"] for resource in made} == {"CREATE_COMPLETE"}
    ours = {resource["PhysicalResourceId"] for resource in made if resource["ResourceType"] == "AWS::S3::Bucket"}
    artefacts = clients("cloudformation").describe_stack_resources(StackName="lakestream-artefacts")["StackResources"]
    theirs = {resource["PhysicalResourceId"] for resource in artefacts if resource["ResourceType"] == "AWS::S3::Bucket"}
    assert {bucket["Name"] for bucket in clients("s3").list_buckets()["Buckets"]} == ours | theirs
    assert len(clients("dynamodb").list_tables()["TableNames"]) == 1
    assert len(clients("kinesis").list_streams()["StreamNames"]) == 1


def test_the_tables_dropped_properties_are_applied(clients: Clients, stack: Mapping[str, Any]) -> None:
    (table,) = stack["tables"]
    # The emulator's own expiry would take the item and tell nobody.
    expiry = clients("dynamodb").describe_time_to_live(TableName=table)["TimeToLiveDescription"]
    assert expiry["TimeToLiveStatus"] == "DISABLED"
    backups = clients("dynamodb").describe_continuous_backups(TableName=table)["ContinuousBackupsDescription"]
    assert backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"] == "ENABLED"


def test_the_streams_dropped_encryption_is_applied(clients: Clients, stack: Mapping[str, Any]) -> None:
    stream = clients("kinesis").describe_stream_summary(StreamName=stack["stream"])["StreamDescriptionSummary"]
    assert stream["EncryptionType"] == "KMS"
    assert stream["KeyId"].startswith("arn:aws:kms:")
    assert stream["RetentionPeriodHours"] == 48


def test_the_buckets_dropped_properties_are_applied(clients: Clients, stack: Mapping[str, Any], values: Values) -> None:
    for name, bucket in (("Bucket", stack["bucket"]), ("DeadLetterBucket", stack["dead_letter_bucket"])):
        rules = clients("s3").get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
        wanted = values.properties(name)["LifecycleConfiguration"]["Rules"]
        assert [rule["ID"] for rule in rules] == [rule["Id"] for rule in wanted]
        (encryption,) = clients("s3").get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
        default = encryption["ApplyServerSideEncryptionByDefault"]
        assert default["SSEAlgorithm"] == "aws:kms"
        assert all(clients("s3").get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"].values())
    archive = {
        rule["ID"]: rule for rule in clients("s3").get_bucket_lifecycle_configuration(Bucket=stack["bucket"])["Rules"]
    }
    assert archive["archive"]["Expiration"]["Days"] == archive["claims"]["Expiration"]["Days"] == 123


def test_the_emulators_own_mapping_and_delivery_are_out_of_the_way(clients: Clients) -> None:
    (mapping,) = clients("lambda").list_event_source_mappings()["EventSourceMappings"]
    assert mapping["State"] in ("Disabled", "Disabling")
    assert clients("firehose").list_delivery_streams()["DeliveryStreamNames"] == []


# --- what runs beside it ----------------------------------------------------------------------------------------------


def test_mapping_and_delivery_run_with_what_the_template_says(home: Path, stack: Mapping[str, Any]) -> None:
    mapping, delivery = settings(home, "mapping"), settings(home, "delivery")
    assert {name: mapping[name] for name in ("batch_size", "window_s", "retries_max", "age_max_s", "bisect")} == {
        "batch_size": 3,
        "window_s": 300,
        "retries_max": 7,
        "age_max_s": 3600,
        "bisect": False,
    }
    assert mapping["parallelization"] == 2
    assert mapping["report_failures"]
    assert mapping["starting_position"] == "TRIM_HORIZON"
    assert mapping["function"]["timeout_s"] == 33
    assert mapping["on_failure"] == {"s3": {"bucket": stack["dead_letter_bucket"], "prefix": ""}}
    assert mapping["function"]["env"]["LAKESTREAM_STREAM"] == delivery["stream"] == stack["stream"]
    assert mapping["function"]["env"]["LAKESTREAM_BUCKET"] == delivery["bucket"] == stack["bucket"]
    assert (delivery["buffer_s"], delivery["buffer_bytes"]) == (17, 3 * 1024 * 1024)


def test_a_changed_window_in_the_template_changes_when_the_bridge_is_called(
    home: Path, stack: Mapping[str, Any], clients: Clients
) -> None:
    """Three changes, each read before the next is written, make one call: it waited for the third."""
    (table,) = stack["tables"]
    for count in (1, 2, 3):
        assert metric(home, "mapping", "lakestream_mapping_invocations_total") == 0
        # One key's changes stay in one lane of the two that Parallelization asks for.
        clients("dynamodb").put_item(TableName=table, Item={"event_id": {"S": "k"}, "n": {"N": str(count)}})
        until(lambda count=count: metric(home, "mapping", "lakestream_mapping_records_total") == count, "it was read")
    until(lambda: metric(home, "mapping", "lakestream_mapping_records_done_total") == 3, "the batch is done")
    assert metric(home, "mapping", "lakestream_mapping_invocations_total") == 1


def test_an_expiry_reaches_the_stream_as_the_services_own_deletion(
    home: Path, stack: Mapping[str, Any], clients: Clients
) -> None:
    """Written with a time that has passed, deleted by the expiries, written again: three changes, one call."""
    (table,) = stack["tables"]
    done = metric(home, "mapping", "lakestream_mapping_records_done_total")
    item = {"event_id": {"S": "expiring"}, "expires_at": {"N": str(int(time.time()) - 60)}}
    clients("dynamodb").put_item(TableName=table, Item=item)
    until(lambda: metric(home, "expiries", "lakestream_expiries_items_total") == 1, "it has expired")
    clients("dynamodb").put_item(TableName=table, Item={"event_id": {"S": "expiring"}, "n": {"N": "2"}})
    until(lambda: metric(home, "mapping", "lakestream_mapping_records_done_total") == done + 3, "the batch is done")
    envelopes = [envelope for envelope in bridged(stack, clients) if envelope["key"] == {"event_id": "expiring"}]
    assert [(envelope["op"], envelope["ttl"]) for envelope in envelopes] == [
        ("INSERT", False),
        ("REMOVE", True),
        ("INSERT", False),
    ]


def bridged(stack: Mapping[str, Any], clients: Clients) -> list[dict[str, Any]]:
    """Every envelope in the change stream, in its one shard's order."""
    kinesis = clients("kinesis")
    (shard,) = kinesis.list_shards(StreamName=stack["stream"])["Shards"]
    iterator = kinesis.get_shard_iterator(
        StreamName=stack["stream"], ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    return [json.loads(record["Data"]) for record in kinesis.get_records(ShardIterator=iterator)["Records"]]


# --- judged against what exists ---------------------------------------------------------------------------------------


def test_a_second_stack_whose_names_are_taken_is_refused_before_it_is_made(clients: Clients, values: Values) -> None:
    with pytest.raises(NotDeployableError, match="exists already"):
        validate.check_names_free(clients, values)


def test_a_stack_that_exists_and_rests_may_be_updated(clients: Clients) -> None:
    assert validate.check_stack_settled(clients, "lakestream")
    assert not validate.check_stack_settled(clients, "no-such-stack")


def test_a_stack_half_rolled_back_is_refused_with_the_way_out(clients: Clients) -> None:
    broken = {"Resources": {"Q": {"Type": "AWS::SQS::Queue", "Properties": {"MessageRetentionPeriod": 1}}}}
    clients("cloudformation").create_stack(StackName="broken", TemplateBody=json.dumps(broken))
    until(lambda: validate.stack_status(clients, "broken") == "ROLLBACK_COMPLETE", "it has rolled back")
    with pytest.raises(NotDeployableError, match=r"half rolled back \(ROLLBACK_COMPLETE\).*delete-stack"):
        validate.check_stack_settled(clients, "broken")


def _table(clients: Clients, name: str, view: str) -> str:
    description = clients("dynamodb").create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": view},
    )["TableDescription"]
    return str(description["LatestStreamArn"])


def test_a_table_whose_stream_shows_only_keys_is_refused(clients: Clients) -> None:
    stream = _table(clients, "only-keys", "KEYS_ONLY")
    with pytest.raises(NotDeployableError, match="shows KEYS_ONLY, NEW_AND_OLD_IMAGES is needed"):
        validate.check_table_stream(clients, stream)
    validate.check_table_stream(clients, _table(clients, "all-images", "NEW_AND_OLD_IMAGES"))


def test_a_table_stream_that_is_not_there_is_refused(clients: Clients) -> None:
    with pytest.raises(NotDeployableError, match="cannot be read: ResourceNotFoundException"):
        validate.check_table_stream(
            clients, "arn:aws:dynamodb:us-east-1:000000000000:table/none/stream/2026-01-01T00:00"
        )
