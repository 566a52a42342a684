"""Splits and merges while records flow, on an emulator that reshards: none lost, none twice, order kept by key."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.faults.kinesis_loop import MicroBatches, Row
from tests.faults.kinesis_servers import client, until

pytestmark = pytest.mark.node

NewStream = Callable[[str, int], str]
KEYS = 40


@dataclass
class Writer:
    """Puts one record after another under changing keys; a refused call (a shard in change) is made again."""

    kinesis: Any
    stream: str
    sent: int = 0
    _paused: threading.Event = field(default_factory=threading.Event)

    def put(self, count: int) -> None:
        for _ in range(0, count, 20):
            records = [
                {"Data": f"{n:07d}".encode(), "PartitionKey": f"key-{n % KEYS}"}
                for n in range(self.sent, self.sent + 20)
            ]
            while records:
                answer = self._call(records)
                failed = [index for index, each in enumerate(answer["Records"]) if "ErrorCode" in each]
                # Everything from the first failure on, so that a key's order is not turned around.
                records = records[failed[0] :] if failed else []
                assert not failed, "the emulator fails whole calls only"
            self.sent += 20

    def _call(self, records: list[dict[str, Any]]) -> Any:
        def attempt() -> Any:
            try:
                return self.kinesis.put_records(StreamName=self.stream, Records=records)
            except ClientError as error:
                if error.response["Error"]["Code"] in (
                    "ResourceInUseException",
                    "ProvisionedThroughputExceededException",
                ):
                    return None
                raise

        return until(attempt, "the stream takes records")


@contextmanager
def load(writer: Writer, records: int) -> Iterator[None]:
    """So many records are put while the block runs."""
    thread = threading.Thread(target=writer.put, args=(records,))
    thread.start()
    try:
        yield
    finally:
        thread.join()


def open_shards(kinesis: Any, stream: str) -> list[dict[str, Any]]:
    shards = kinesis.list_shards(StreamName=stream)["Shards"]
    alive = [s for s in shards if "EndingSequenceNumber" not in s["SequenceNumberRange"]]
    return sorted(alive, key=lambda s: int(s["HashKeyRange"]["StartingHashKey"]))


def active(kinesis: Any, stream: str) -> bool:
    summary = kinesis.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]
    return bool(summary["StreamStatus"] == "ACTIVE")


def split(kinesis: Any, stream: str) -> None:
    shard = open_shards(kinesis, stream)[0]
    low, high = (int(shard["HashKeyRange"][name]) for name in ("StartingHashKey", "EndingHashKey"))
    kinesis.split_shard(StreamName=stream, ShardToSplit=shard["ShardId"], NewStartingHashKey=str((low + high) // 2))
    until(lambda: active(kinesis, stream), "the split is done")


def merge(kinesis: Any, stream: str) -> None:
    left, right = open_shards(kinesis, stream)[:2]
    kinesis.merge_shards(StreamName=stream, ShardToMerge=left["ShardId"], AdjacentShardToMerge=right["ShardId"])
    until(lambda: active(kinesis, stream), "the merge is done")


def resize(kinesis: Any, stream: str, factor: float) -> None:
    target = int(len(open_shards(kinesis, stream)) * factor)
    kinesis.update_shard_count(StreamName=stream, TargetShardCount=target, ScalingType="UNIFORM_SCALING")
    until(lambda: active(kinesis, stream) and len(open_shards(kinesis, stream)) == target, "the shards are there")


STEPS: list[Callable[[Any, str], None]] = [
    split,
    merge,
    lambda kinesis, stream: resize(kinesis, stream, 2),
    lambda kinesis, stream: resize(kinesis, stream, 0.5),
    split,
    merge,
]


def assert_each_once_and_in_order_by_key(rows: list[Row], sent: int) -> None:
    numbers = [int(row.data) for row in rows]
    assert sorted(numbers) == list(range(sent)), "each once"
    by_key: dict[int, list[int]] = {}
    for number in numbers:
        by_key.setdefault(number % KEYS, []).append(number)
    assert all(key == sorted(key) for key in by_key.values()), "order within keys"


def test_through_split_merge_double_and_halve_under_load_each_record_arrives_once_and_in_order(
    resharding_endpoint: str, new_stream: NewStream
) -> None:
    """200 and more records at each step; small batches, so that steps fall between, before and after plans."""
    kinesis, stream = client(resharding_endpoint), new_stream(resharding_endpoint, 2)
    writer = Writer(client(resharding_endpoint), stream)
    query = MicroBatches(resharding_endpoint, stream, {"maxRecordsPerTrigger": "150"})
    writer.put(200)
    for step in STEPS:
        with load(writer, 240):
            step(kinesis, stream)
            query.step()
    query.until(lambda rows: len(rows) >= writer.sent, "all records")
    query.restart()
    assert_each_once_and_in_order_by_key(query.rows, writer.sent)


def test_children_wait_for_all_their_parents_even_when_everything_is_already_there(
    resharding_endpoint: str, new_stream: NewStream
) -> None:
    """A query that starts after the reshardings, and restarts after every batch."""
    kinesis, stream = client(resharding_endpoint), new_stream(resharding_endpoint, 3)
    writer = Writer(kinesis, stream)
    for step in STEPS[:3]:
        writer.put(200)
        step(kinesis, stream)
    writer.put(200)
    query = MicroBatches(resharding_endpoint, stream, {"maxRecordsPerTrigger": "300"}, available_now=True)
    while query.step() is not None:
        query.restart()
    query.restart()
    assert_each_once_and_in_order_by_key(query.rows, writer.sent)


def test_a_crash_between_plan_and_commit_at_a_resharding_delivers_the_same_batch_again(
    resharding_endpoint: str, new_stream: NewStream
) -> None:
    kinesis, stream = client(resharding_endpoint), new_stream(resharding_endpoint, 2)
    writer = Writer(kinesis, stream)
    query = MicroBatches(resharding_endpoint, stream, {"maxRecordsPerTrigger": "70"})
    query.step()
    for step in STEPS[:3]:
        writer.put(200)
        step(kinesis, stream)
        query.plan_and_crash()
        query.step()
    query.until(lambda rows: len(rows) >= writer.sent, "all records")
    query.restart()
    assert_each_once_and_in_order_by_key(query.rows, writer.sent)


@pytest.mark.parametrize("start", ["latest", "at_timestamp"])
def test_a_query_that_starts_at_a_time_gets_what_came_after_it_also_from_shards_split_before_and_after(
    resharding_endpoint: str, new_stream: NewStream, start: str
) -> None:
    kinesis, stream = client(resharding_endpoint), new_stream(resharding_endpoint, 2)
    writer = Writer(kinesis, stream)
    writer.put(200)
    split(kinesis, stream)
    writer.put(200)
    before = writer.sent
    options = {"initialPosition": "latest"}
    if start == "at_timestamp":
        last = newest_arrival(kinesis, stream)
        options = {"initialPosition": last}
    query = MicroBatches(resharding_endpoint, stream, options)
    query.step()
    writer.put(200)
    split(kinesis, stream)
    writer.put(200)
    query.until(lambda rows: len({r.data for r in rows if int(r.data) >= before}) >= 400, "what came after")
    query.restart()
    numbers = sorted(int(row.data) for row in query.rows)
    assert numbers[-400:] == list(range(before, before + 400))
    assert len(numbers) < 600, "what came long before is not read"


def newest_arrival(kinesis: Any, stream: str) -> str:
    newest = []
    for shard in open_shards(kinesis, stream):
        iterator = kinesis.get_shard_iterator(
            StreamName=stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        newest += [r["ApproximateArrivalTimestamp"] for r in kinesis.get_records(ShardIterator=iterator)["Records"]]
    return str(max(newest).isoformat())
