"""The mapping's small parts: the event it hands over, the position it keeps, the documents of what it gives up."""

import base64
import json
import random
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from infra.local.lineage import Shard, readable
from infra.local.mapping.checkpoint import Checkpoint
from infra.local.mapping.destination import document
from infra.local.mapping.event import Change, encode, event_of, fitting
from infra.local.mapping.lane import Batch, Discard
from infra.local.mapping.outcome import Failed, Outcome, Returned
from infra.local.mapping.settings import MappingSettings

ARN = "arn:aws:dynamodb:us-east-1:000000000000:table/cars/stream/2026-01-02T03:04:05.678"


def api_record(**more: Any) -> dict[str, Any]:
    """A record as boto3 returns it."""
    return {
        "eventID": "e1",
        "eventName": "MODIFY",
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": "us-east-1",
        "dynamodb": {
            "ApproximateCreationDateTime": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
            "Keys": {"id": {"S": "a"}},
            "NewImage": {"id": {"S": "a"}, "b": {"B": b"\x00\xff"}, "s": {"BS": [b"\x01"]}, "n": {"N": "1E+37"}},
            "OldImage": {"id": {"S": "a"}, "m": {"M": {"deep": {"L": [{"B": b"\x02"}, {"NULL": True}]}}}},
            "SequenceNumber": "111100000000000000000001",
            "SizeBytes": 59,
            "StreamViewType": "NEW_AND_OLD_IMAGES",
        },
    } | more


def made(number: int, size: int = 10) -> Change:
    return Change(str(number), b"k", 0.0, b"x" * size)


def test_an_event_looks_as_lambda_makes_it() -> None:
    event = json.loads(event_of([encode(api_record(), stream_arn=ARN)]))
    (record,) = event["Records"]
    assert list(record) == [
        "eventID",
        "eventName",
        "eventVersion",
        "eventSource",
        "awsRegion",
        "dynamodb",
        "eventSourceARN",
    ]
    assert record["eventSourceARN"] == ARN
    assert record["dynamodb"]["ApproximateCreationDateTime"] == 1767323045
    assert isinstance(record["dynamodb"]["ApproximateCreationDateTime"], int)
    assert record["dynamodb"]["SizeBytes"] == 59
    assert record["dynamodb"]["NewImage"]["n"] == {"N": "1E+37"}


def test_binary_values_are_base64_text_at_any_depth() -> None:
    change = json.loads(encode(api_record(), stream_arn=ARN).encoded)["dynamodb"]
    assert base64.b64decode(change["NewImage"]["b"]["B"]) == b"\x00\xff"
    assert change["NewImage"]["s"]["BS"] == ["AQ=="]
    assert change["OldImage"]["m"]["M"]["deep"]["L"] == [{"B": "Ag=="}, {"NULL": True}]


def test_an_expiry_carries_its_user_identity_under_the_events_names() -> None:
    identity = {"PrincipalId": "dynamodb.amazonaws.com", "Type": "Service"}
    record = json.loads(encode(api_record(userIdentity=identity), stream_arn=ARN).encoded)
    assert record["userIdentity"] == {"principalId": "dynamodb.amazonaws.com", "type": "Service"}


def test_an_items_changes_share_a_lane_however_its_key_is_written_down() -> None:
    one, other = api_record(), api_record()
    one["dynamodb"]["Keys"] = {"id": {"S": "a"}, "at": {"N": "1"}}
    other["dynamodb"]["Keys"] = {"at": {"N": "1"}, "id": {"S": "a"}}
    assert encode(one, stream_arn=ARN).item == encode(other, stream_arn=ARN).item


@pytest.mark.parametrize(
    ("sizes", "expected"), [([10], 1), ([99], 1), ([30, 30], 2), ([30, 30, 30], 2), ([10] * 9, 4), ([], 0)]
)
def test_an_event_takes_what_fits_and_never_nothing(sizes: list[int], expected: int) -> None:
    records = [made(number, size) for number, size in enumerate(sizes)]
    assert fitting(records, records_max=4, bytes_max=80) == expected
    assert expected < 2 or len(event_of(records[:expected])) <= 80


def test_the_position_never_passes_a_change_that_is_not_done() -> None:
    rng = random.Random(7)
    records = [made(number) for number in range(200)]
    checkpoint = Checkpoint(None)
    checkpoint.read(records)
    finished: set[str] = set()
    for change in rng.sample(records, len(records)):
        checkpoint.done([change])
        finished.add(change.sequence)
        before = [each.sequence for each in records]
        assert checkpoint.after is None or set(before[: int(checkpoint.after) + 1]) <= finished
    assert checkpoint.after == "199"
    assert len(checkpoint) == 0


def test_children_are_read_when_all_their_parents_are_or_are_no_longer_listed() -> None:
    shards = [Shard("a"), Shard("b"), Shard("ab", ("a", "b")), Shard("orphan", ("expired",)), Shard("abc", ("ab",))]
    assert [shard.id for shard in readable(shards, set())] == ["a", "b", "orphan"]
    assert [shard.id for shard in readable(shards, {"a"})] == ["b", "orphan"]
    assert [shard.id for shard in readable(shards, {"a", "b", "orphan"})] == ["ab"]


def given_up(outcome: Outcome | None, invocations: int) -> dict[str, Any]:
    records = tuple(Change(str(number), b"k", 1767323045.0 + number, b"{}") for number in range(3))
    discard = Discard(Batch(records, 2, invocations, outcome), "RetryAttemptsExhausted")
    now = datetime(2026, 1, 2, 3, 5, 0, 123456, tzinfo=UTC)
    return document(discard, shard="shardId-1", stream_arn=ARN, function_arn="arn:f", now=now)


def test_the_document_of_a_discarded_batch_is_the_one_lambda_writes() -> None:
    body = given_up(Failed("ValueError", "no"), 3)
    assert body.keys() == {"requestContext", "responseContext", "version", "timestamp", "DDBStreamBatchInfo"}
    assert body["requestContext"].pop("requestId")
    assert body["requestContext"] == {
        "functionArn": "arn:f",
        "condition": "RetryAttemptsExhausted",
        "approximateInvokeCount": 3,
    }
    assert body["responseContext"] == {
        "statusCode": 200,
        "executedVersion": "$LATEST",
        "functionError": "Unhandled",
    }
    assert body["version"] == "1.0"
    assert body["timestamp"] == "2026-01-02T03:05:00.123Z"
    assert body["DDBStreamBatchInfo"] == {
        "shardId": "shardId-1",
        "startSequenceNumber": "0",
        "endSequenceNumber": "2",
        "approximateArrivalOfFirstRecord": "2026-01-02T03:04:05Z",
        "approximateArrivalOfLastRecord": "2026-01-02T03:04:07Z",
        "batchSize": 3,
        "streamArn": ARN,
    }


def test_a_reported_failure_is_no_function_error() -> None:
    context = given_up(Returned({"batchItemFailures": [{"itemIdentifier": "0"}]}), 1)["responseContext"]
    assert context["statusCode"] == 200
    assert "functionError" not in context


def test_what_was_never_invoked_has_no_response() -> None:
    assert "responseContext" not in given_up(None, 0)


SETTINGS: dict[str, Any] = {"region": "us-east-1", "table": "cars", "stream_arn": ARN, "state_dir": "state"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 0},
        {"batch_size": 10_001},
        {"window_s": 301},
        {"parallelization": 11},
        {"retries_max": -2},
        {"retries_max": 10_001},
        {"age_max_s": 604_801},
        {"age_max_s": 59},
        {"starting_position": "AT_TIMESTAMP"},
        {"table": "bikes"},
        {"stream_arn": "arn:aws:kinesis:us-east-1:000000000000:stream/s"},
        {"on_failure": {}},
        {"on_failure": {"s3": {"bucket": "b"}, "sqs": "url"}},
        {"function": {"handler": "not a name"}},
        {"function": {"timeout_s": 901}},
        {"batchsize": 1},
    ],
    ids=str,
)
def test_settings_that_aws_would_refuse_are_refused(wrong: dict[str, Any]) -> None:
    MappingSettings.model_validate(SETTINGS)
    with pytest.raises(ValidationError):
        MappingSettings.model_validate(SETTINGS | wrong)


def test_a_mapping_keeps_its_id_across_starts_and_functions_have_their_own() -> None:
    mapping = MappingSettings.model_validate(SETTINGS)
    other = MappingSettings.model_validate(SETTINGS | {"function": {"name": "other"}})
    assert mapping.mapping_id == MappingSettings.model_validate(SETTINGS).mapping_id
    assert mapping.mapping_id != other.mapping_id
