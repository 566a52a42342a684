"""The source against an emulator, a proxy that breaks calls between them. A new fault is a new row of the table."""

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from streaming_job.kinesis.aws import AwsKinesis
from streaming_job.kinesis.errors import (
    DataLossError,
    DeniedError,
    OptionError,
    StreamMissingError,
    UnavailableError,
)
from streaming_job.kinesis.offsets import Position, ShardRef
from tests.faults.kinesis_loop import MicroBatches
from tests.faults.kinesis_proxy import Body, BreakingProxy, Fault, breaking_proxy
from tests.faults.kinesis_servers import REGION, client, until

pytestmark = pytest.mark.stack

NewStream = Callable[[str, int], str]


@pytest.fixture
def proxy(kinesis_endpoint: str) -> Iterator[BreakingProxy]:
    with breaking_proxy(kinesis_endpoint) as running:
        yield running


def put(kinesis: Any, stream: str, first: int, count: int) -> list[bytes]:
    data = [f"{n:06d}".encode() for n in range(first, first + count)]
    for start in range(0, count, 500):
        records = [{"Data": d, "PartitionKey": f"k{int(d) % 17}"} for d in data[start : start + 500]]
        kinesis.put_records(StreamName=stream, Records=records)
    return data


@pytest.mark.parametrize(
    ("faults", "counter"),
    [
        ([Fault("throttle", times=3)], "throttles"),
        ([Fault("expired", times=2)], "expired_iterators"),
        ([Fault("reset", times=3)], "retries"),
        ([Fault("internal", times=3)], "retries"),
        ([Fault("unavailable", times=2)], "retries"),
        ([Fault("cut", times=2)], "retries"),
        ([Fault("slow", times=2, seconds=1.0)], None),
        ([Fault("reset", "GetShardIterator", 2)], "retries"),
        ([Fault("throttle", "GetShardIterator", 2)], "throttles"),
        ([Fault("internal", "ListShards", 1), Fault("internal", "DescribeStreamSummary", 1)], None),
        ([Fault("throttle", times=2), Fault("reset", times=2), Fault("expired", times=2)], "throttles"),
    ],
    ids=lambda value: "+".join(f"{f.kind}-{f.operation}" for f in value) if isinstance(value, list) else str(value),
)
def test_what_passes_is_retried_and_every_record_arrives_once_in_order(  # noqa: PLR0917 - fixtures and a row of the table
    proxy: BreakingProxy,
    kinesis: Any,
    kinesis_endpoint: str,
    new_stream: NewStream,
    faults: list[Fault],
    counter: str | None,
) -> None:
    """Half the records are read through the fault from the start, half meet it at the tip."""
    stream = new_stream(kinesis_endpoint, 2)
    expected = put(kinesis, stream, 0, 600)
    proxy.breaks(*faults)
    query = MicroBatches(proxy.url, stream)
    query.until(lambda rows: len(rows) >= 600, "the records that were there")
    proxy.breaks(*[Fault(f.kind, f.operation, f.times or 1, f.seconds) for f in faults])
    expected += put(kinesis, stream, 600, 400)
    query.until(lambda rows: len(rows) >= 1000, "the records at the tip")
    shards = query.progress()
    query.restart()
    assert sorted(query.data()) == expected
    by_shard: dict[str, list[bytes]] = {}
    for row in query.rows:
        by_shard.setdefault(row.shard, []).append(row.data)
    assert all(rows == sorted(rows) for rows in by_shard.values())
    assert counter is None or sum(getattr(shard, counter) for shard in shards) > 0


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        (Fault("denied", "DescribeStreamSummary", 99), DeniedError, ["DescribeStreamSummary", "ListShards"]),
        (Fault("denied", "ListShards", 99), DeniedError, ["ListShards"]),
        (Fault("denied", "GetRecords", 99), DeniedError, ["GetRecords"]),
        (Fault("kms", "GetRecords", 99), DeniedError, ["kms:Decrypt"]),
        (Fault("missing", "DescribeStreamSummary", 99), StreamMissingError, ["streamName", "region"]),
        (Fault("internal", "GetRecords", 9999), UnavailableError, ["maxRetryDuration", "same position"]),
        (Fault("reset", "DescribeStreamSummary", 9999), UnavailableError, ["maxRetryDuration"]),
    ],
    ids=lambda value: value.kind + "-" + value.operation if isinstance(value, Fault) else "",
)
def test_what_does_not_pass_stops_the_query_and_after_healing_nothing_is_missing(  # noqa: PLR0917 - as above
    proxy: BreakingProxy,
    kinesis: Any,
    kinesis_endpoint: str,
    new_stream: NewStream,
    fault: Fault,
    error: type[Exception],
    words: list[str],
) -> None:
    stream = new_stream(kinesis_endpoint, 1)
    expected = put(kinesis, stream, 0, 100)
    query = MicroBatches(proxy.url, stream, {"maxRetryDuration": "500ms"})
    query.until(lambda rows: len(rows) >= 100, "the first records")
    query.restart()
    proxy.breaks(fault)
    expected += put(kinesis, stream, 100, 50)
    with pytest.raises(error) as raised:
        query.until(lambda rows: len(rows) >= 150, "an error")
    assert all(word in str(raised.value) for word in words)
    query.restart()
    proxy.heal()
    query.until(lambda rows: len(rows) >= 150, "the rest")
    query.restart()
    assert sorted(query.data()) == expected


DAYS_2_MS = 2 * 86_400_000
DAYS_30_MS = 30 * 86_400_000


class TrimmedAnswers:
    """Kinesis after the retention took everything up to a record: it says nothing, it only has less.

    The stream is a month old: one that is younger than its retention has lost nothing.
    """

    def __init__(self, upto: bytes) -> None:
        self._upto = upto

    def __call__(self, operation: str, answer: Body) -> Body:
        if operation == "DescribeStreamSummary":
            answer["StreamDescriptionSummary"]["StreamCreationTimestamp"] -= DAYS_30_MS / 1000
        if operation == "GetRecords":
            answer["Records"] = [r for r in answer["Records"] if _plain(r["Data"]) > self._upto]
        return answer


def _plain(data: str) -> bytes:
    return base64.b64decode(data)


def aged(log: list[str], ms: int) -> list[str]:
    """A checkpoint as it would be, had the query on a stream a month old stopped that long ago."""
    offsets = [json.loads(text) for text in log]
    for offset in offsets:
        for stream in offset["streams"].values():
            stream["created_ms"] -= DAYS_30_MS
            for shard in stream["shards"].values():
                shard["seen_ms"] = max(1, shard["seen_ms"] - ms)
    return [json.dumps(offset) for offset in offsets]


def test_records_trimmed_before_they_were_read_stop_the_query_and_it_says_which_and_what_to_do(
    proxy: BreakingProxy, kinesis: Any, kinesis_endpoint: str, new_stream: NewStream
) -> None:
    stream = new_stream(kinesis_endpoint, 1)
    put(kinesis, stream, 0, 10)
    query = MicroBatches(proxy.url, stream)
    query.until(lambda rows: len(rows) >= 10, "the first records")
    query.restart()
    put(kinesis, stream, 10, 10)
    query.log = aged(query.log, DAYS_2_MS)
    proxy.rewrite = TrimmedAnswers(b"000014")
    with pytest.raises(DataLossError) as raised:
        query.until(lambda rows: len(rows) > 10, "an error")
    for part in (f"{stream}/shardId-000000000000", query.rows[-1].sequence, "failOnDataLoss=false", "archive"):
        assert part in str(raised.value)
    query.restart()
    query.options["failOnDataLoss"] = "false"
    query.until(lambda rows: len(rows) >= 15, "what is left")
    assert [shard.losses for shard in query.progress()] == [1]
    query.restart()
    assert sorted(query.data())[10:] == [f"{n:06d}".encode() for n in range(15, 20)]


def test_a_batch_that_was_planned_and_then_trimmed_is_never_delivered_shorter(
    proxy: BreakingProxy, kinesis: Any, kinesis_endpoint: str, new_stream: NewStream
) -> None:
    stream = new_stream(kinesis_endpoint, 1)
    put(kinesis, stream, 0, 10)
    query = MicroBatches(proxy.url, stream)
    query.until(lambda rows: len(rows) >= 10, "the first records")
    put(kinesis, stream, 10, 10)
    query.plan_and_crash()
    query.log = aged(query.log, DAYS_2_MS)
    proxy.rewrite = TrimmedAnswers(b"000014")
    with pytest.raises(DataLossError):
        query.step()
    query.restart()


def test_a_query_on_an_idle_shard_is_not_stopped_when_its_last_record_leaves_the_stream(
    proxy: BreakingProxy, kinesis: Any, kinesis_endpoint: str, new_stream: NewStream
) -> None:
    """The shard was seen at its tip after that record, within the retention."""
    stream = new_stream(kinesis_endpoint, 1)
    put(kinesis, stream, 0, 10)
    query = MicroBatches(proxy.url, stream)
    query.until(lambda rows: len(rows) >= 10, "the first records")
    query.restart()
    query.log = aged(query.log, 20 * 3_600_000)
    proxy.rewrite = TrimmedAnswers(b"000009")
    put(kinesis, stream, 10, 5)
    query.until(lambda rows: len(rows) >= 15, "the records after the quiet time")
    assert [shard.losses for shard in query.progress()] == [0]
    query.restart()


def test_a_stream_made_anew_is_refused_and_on_request_read_from_its_beginning(
    kinesis: Any, kinesis_endpoint: str, new_stream: NewStream
) -> None:
    stream = new_stream(kinesis_endpoint, 2)
    put(kinesis, stream, 0, 10)
    query = MicroBatches(kinesis_endpoint, stream)
    query.until(lambda rows: len(rows) >= 10, "the first records")
    query.restart()
    kinesis.delete_stream(StreamName=stream)
    kinesis.create_stream(StreamName=stream, ShardCount=1)
    put(kinesis, stream, 50, 10)
    query.log = [text.replace('"created_ms": 1', '"created_ms": 2') for text in query.log]
    with pytest.raises(DataLossError, match=r"made anew.*failOnDataLoss=false"):
        query.step()
    query.restart()
    query.options["failOnDataLoss"] = "false"
    query.until(lambda rows: len(rows) >= 20, "the new stream's records")
    query.restart()
    assert sorted(query.data())[10:] == [f"{n:06d}".encode() for n in range(50, 60)]


def test_with_enhanced_fan_out_records_are_pushed_once_in_order_and_a_restart_continues(
    kinesis: Any, kinesis_endpoint: str, new_stream: NewStream
) -> None:
    stream = new_stream(kinesis_endpoint, 2)
    expected = put(kinesis, stream, 0, 200)
    options = {"consumerMode": "efo", "registeredConsumerId": "lake", "requireConsumerDeregistration": "true"}
    query = MicroBatches(kinesis_endpoint, stream, options)
    query.until(lambda rows: len(rows) >= 200, "what was there")
    expected += put(kinesis, stream, 200, 100)
    query.until(lambda rows: len(rows) >= 300, "what was pushed")
    arn = kinesis.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]["StreamARN"]
    consumers = kinesis.list_stream_consumers(StreamARN=arn)["Consumers"]
    assert [consumer["ConsumerName"] for consumer in consumers] == ["lake"]
    query.restart()
    assert kinesis.list_stream_consumers(StreamARN=arn)["Consumers"] == []
    expected += put(kinesis, stream, 300, 50)
    query.until(lambda rows: len(rows) >= 350, "what came after the restart")
    query.restart()
    assert sorted(query.data()) == expected


def test_a_subscription_that_is_given_up_closes_its_connection(
    kinesis: Any, kinesis_endpoint: str, new_stream: NewStream
) -> None:
    stream = new_stream(kinesis_endpoint, 1)
    put(kinesis, stream, 0, 10)
    opened: list[Any] = []
    boto = client(kinesis_endpoint)
    boto.meta.events.register("after-call.kinesis.SubscribeToShard", lambda parsed, **_: opened.append(parsed))
    api = AwsKinesis(boto, REGION)
    arn = until(lambda: api.consumer(api.describe(stream).arn, "lake"), "the consumer is active")
    events = api.subscribe(arn, ShardRef(stream, "shardId-000000000000"), Position.trim_horizon())
    assert next(events).sequences
    events.close()
    assert [answer["EventStream"]._raw_stream.closed for answer in opened] == [True]


def test_a_consumer_of_another_stream_is_refused(kinesis_endpoint: str, new_stream: NewStream) -> None:
    stream = new_stream(kinesis_endpoint, 1)
    other = "arn:aws:kinesis:us-east-1:000000000000:stream/other/consumer/c:1"
    options = {"consumerMode": "efo", "registeredConsumerId": other, "registeredConsumerIdType": "ARN"}
    query = MicroBatches(kinesis_endpoint, stream, options)
    query.step()
    with pytest.raises(OptionError, match="registeredConsumerId"):
        query.step()
