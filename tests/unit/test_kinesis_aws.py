"""What Kinesis refuses or breaks off, through AwsKinesis and the readers: what passes is tried again."""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.eventstream import ChecksumMismatch
from botocore.exceptions import ClientError, EventStreamError
from botocore.hooks import HierarchicalEmitter
from urllib3 import HTTPConnectionPool
from urllib3.exceptions import ProtocolError, ReadTimeoutError

from streaming_job.kinesis.aws import AwsKinesis
from streaming_job.kinesis.errors import DeniedError, RejectedError, TransientError
from streaming_job.kinesis.fetch import ShardReader, SubscribedReader
from streaming_job.kinesis.offsets import Position, ShardRef
from tests.unit.kinesis_memory import HandClock
from tests.unit.test_kinesis_fetch import LIMITS

REF = ShardRef("s", "shardId-0")


def event(sequence: str, data: bytes) -> dict[str, Any]:
    record = {
        "SequenceNumber": sequence,
        "ApproximateArrivalTimestamp": datetime.fromtimestamp(1_795_323_146),  # noqa: DTZ006 - as botocore gives it
        "Data": data,
        "PartitionKey": "k",
    }
    return {
        "SubscribeToShardEvent": {
            "Records": [record],
            "ContinuationSequenceNumber": sequence,
            "MillisBehindLatest": 0,
        }
    }


@dataclass
class BreakingStream:
    """A subscription's events, and then what breaks it."""

    events: list[dict[str, Any]]
    broken_by: Exception | None
    closed: bool = False

    def __iter__(self) -> Iterator[dict[str, Any]]:
        yield from self.events
        if self.broken_by is not None:
            raise self.broken_by

    def close(self) -> None:
        self.closed = True


@dataclass
class StubClient:
    """botocore's client as far as the readers call it."""

    subscriptions: list[BreakingStream] = field(default_factory=list)
    starts: list[dict[str, Any]] = field(default_factory=list)
    clock: HandClock = field(default_factory=HandClock)
    behind_ms: int = 0
    """Kinesis' clock, against ours."""
    meta: Any = field(default_factory=lambda: SimpleNamespace(events=HierarchicalEmitter()))

    def subscribe_to_shard(self, *, StartingPosition: dict[str, Any], **_: Any) -> dict[str, Any]:  # noqa: N803
        self.starts.append(StartingPosition)
        return {"EventStream": self.subscriptions[len(self.starts) - 1]}

    def get_shard_iterator(self, *, Timestamp: datetime, **_: Any) -> dict[str, Any]:  # noqa: N803
        now_ms, asked_ms = self.clock.ms - self.behind_ms, round(Timestamp.timestamp() * 1000)
        if asked_ms > now_ms:
            message = (
                "The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. "
                f"timestampInMillis: {asked_ms}, currentTimestampInMillis: {now_ms}"
            )
            raise refused("InvalidArgumentException", message, "GetShardIterator")
        return {"ShardIterator": "iterator"}

    def get_records(self, **_: Any) -> dict[str, Any]:
        record = {
            "SequenceNumber": "1",
            "ApproximateArrivalTimestamp": self.clock.ms / 1000,
            "Data": base64.b64encode(b"first").decode(),
            "PartitionKey": "k",
        }
        return {"Body": json.dumps({"Records": [record], "MillisBehindLatest": 0, "NextShardIterator": "n"}).encode()}


def refused(code: str, message: str, operation: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, operation)


def error_event(code: str) -> EventStreamError:
    return EventStreamError({"Error": {"Code": code, "Message": "in the stream"}}, "SubscribeToShard")


@pytest.mark.parametrize(
    "broken_by",
    [
        ProtocolError("Connection broken", ConnectionResetError()),
        ReadTimeoutError(HTTPConnectionPool("kinesis"), "/", "Read timed out."),
        ChecksumMismatch(1, 2),
        error_event("InternalFailureException"),
        error_event("InternalFailure"),
        error_event(""),
    ],
    ids=lambda error: f"{type(error).__name__}-{getattr(error, 'response', {}).get('Error', {}).get('Code')}",
)
def test_a_subscription_that_breaks_off_is_made_again_where_its_last_event_stopped(broken_by: Exception) -> None:
    client = StubClient([BreakingStream([event("1", b"a")], broken_by), BreakingStream([event("2", b"b")], None)])
    kinesis = AwsKinesis(client, "us-east-1")
    pushed = kinesis.subscribe("arn", REF, Position.trim_horizon())
    assert next(pushed).rows.data == [b"a"]
    with pytest.raises(TransientError, match="SubscribeToShard"):
        next(pushed)
    assert client.subscriptions[0].closed

    client.starts.clear()
    reader = SubscribedReader(kinesis, REF, Position.trim_horizon(), LIMITS, client.clock, consumer_arn="arn")
    assert [reader.read().rows.data for _ in range(2)] == [[b"a"], [b"b"]]
    assert client.starts[-1] == {"Type": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": "1"}
    assert reader.counters.retries == 1


def test_what_a_subscription_is_denied_in_an_event_stops_the_query() -> None:
    client = StubClient([BreakingStream([], error_event("KMSAccessDeniedException"))])
    with pytest.raises(DeniedError, match="KMSAccessDenied"):
        next(AwsKinesis(client, "us-east-1").subscribe("arn", REF, Position.trim_horizon()))


def test_a_start_time_ahead_of_kinesis_clock_is_asked_for_again_until_it_has_come() -> None:
    """`latest` is our clock's now, and Kinesis refuses what is later than its own: the first two tries of three."""
    client = StubClient(behind_ms=101)
    reader = ShardReader(AwsKinesis(client, "us-east-1"), REF, Position.at(client.clock.ms), LIMITS, client.clock)
    assert reader.read().rows.data == [b"first"]
    assert reader.counters.retries == 2


def test_an_argument_that_stays_wrong_stops_the_query() -> None:
    class RefusingClient(StubClient):
        def get_shard_iterator(self, **_: Any) -> dict[str, Any]:
            raise refused("InvalidArgumentException", "Invalid StartingSequenceNumber", "GetShardIterator")

    with pytest.raises(RejectedError, match="StartingSequenceNumber"):
        AwsKinesis(RefusingClient(), "us-east-1").iterator(REF, Position.after("1"))
