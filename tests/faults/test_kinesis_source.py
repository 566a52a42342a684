"""The source's contract against an emulator: starts, limits, restarts, triggers, catch-up, credentials, refusals."""

import json
import logging
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from aws_kinesis_agg.aggregator import RecordAggregator
from pyspark.sql.streaming.datasource import ReadAllAvailable

from streaming_job.kinesis.errors import DeniedError, OffsetError, OptionError, StreamMissingError
from streaming_job.kinesis.options import parse_options
from streaming_job.kinesis.reader import KinesisStreamReader, LakestreamKinesis
from streaming_job.kinesis.spool import SpooledPartition
from tests.faults.kinesis_loop import MicroBatches
from tests.faults.kinesis_servers import REGION, until

pytestmark = pytest.mark.stack

NewStream = Callable[[str, int], str]


def put(kinesis: Any, stream: str, first: int, count: int, *, size: int = 6) -> list[bytes]:
    data = [f"{n:06d}".encode().ljust(size, b".") for n in range(first, first + count)]
    page = min(500, 4_000_000 // size)
    for start in range(0, count, page):
        records = [{"Data": d, "PartitionKey": f"k{d[:6]!r}"} for d in data[start : start + page]]
        kinesis.put_records(StreamName=stream, Records=records)
    return data


@pytest.fixture
def stream(kinesis_endpoint: str, new_stream: NewStream) -> str:
    return new_stream(kinesis_endpoint, 2)


@pytest.mark.parametrize("rows_max", [1, 7, 100, 100_000])
def test_batches_are_exactly_what_was_planned_within_the_limit_across_restarts_and_crashes(
    kinesis: Any, kinesis_endpoint: str, stream: str, rows_max: int
) -> None:
    expected = put(kinesis, stream, 0, 12 if rows_max == 1 else 60)
    query = MicroBatches(kinesis_endpoint, stream, {"maxRecordsPerTrigger": str(rows_max)})
    query.until(lambda rows: len(rows) >= len(expected) // 2, "half")
    if len(query.rows) < len(expected):
        query.plan_and_crash()
    query.until(lambda rows: len(rows) >= len(expected), "all")
    query.restart()
    assert sorted(query.data()) == expected
    sizes = [sum(row.batch == batch for row in query.rows) for batch in range(query.committed)]
    assert max(sizes) <= rows_max


def test_a_batch_run_again_after_a_crash_is_the_same_batch_though_more_has_arrived(
    kinesis: Any, kinesis_endpoint: str, stream: str
) -> None:
    put(kinesis, stream, 0, 30)
    query = MicroBatches(kinesis_endpoint, stream)
    query.step()
    query.plan_and_crash()
    end = json.loads(query.log[-1])
    put(kinesis, stream, 30, 30)
    assert query.reader is not None, "the restart runs the planned batch"
    first = [row.data for row in query.rows]
    again = KinesisStreamReader(query.reader._options)
    tasks = again.partitions(json.loads(query.log[-2]), end)
    rows = [value for task in tasks for batch in again.read(task) for value in batch.column("data").to_pylist()]
    query.restart()
    assert sorted(rows) == sorted(first)


def test_rows_left_in_a_file_are_those_an_executor_reads_where_the_file_is_not_taken(
    kinesis: Any, kinesis_endpoint: str, stream: str, tmp_path: Path
) -> None:
    expected = put(kinesis, stream, 0, 60)
    query = MicroBatches(
        kinesis_endpoint, stream, {"maxRecordsPerTrigger": "25", "spoolFolder": str(tmp_path / "spool")}
    )
    left: list[bytes] = []
    while len(left) < len(expected):
        start, before = (json.loads(query.log[-1]) if query.log else query.reader.initialOffset()), len(query.log)
        query.step()
        if len(query.log) == before:
            continue
        (task,) = query.reader.partitions(start, json.loads(query.log[-1])) or (None,)
        if isinstance(task, SpooledPartition):
            with pa.OSFile(task.path) as file, pa.ipc.open_stream(file) as reader:
                left += reader.read_all()["data"].to_pylist()
    assert sorted(query.data()) == sorted(left) == expected
    query.restart()
    assert not list(tmp_path.iterdir()), "a stopped query leaves nothing"


def test_a_query_from_latest_that_crashed_before_its_first_commit_misses_nothing(
    kinesis: Any, kinesis_endpoint: str, stream: str
) -> None:
    """Spark does not store where the first batch began, so that batch is empty and only writes it down."""
    put(kinesis, stream, 0, 10)
    query = MicroBatches(kinesis_endpoint, stream, {"initialPosition": "latest"})
    query.log.append(json.dumps(query.reader.latestOffset(query.reader.initialOffset(), ReadAllAvailable())))
    query.restart()
    expected = put(kinesis, stream, 10, 10)
    query.until(lambda rows: len(rows) >= 10, "what came after the first start")
    query.restart()
    assert sorted(query.data()) == expected


def test_bytes_are_a_limit_too(kinesis: Any, kinesis_endpoint: str, stream: str) -> None:
    put(kinesis, stream, 0, 20, size=1000)
    query = MicroBatches(kinesis_endpoint, stream, {"maxBytesPerTrigger": "5000"})
    query.until(lambda rows: len(rows) >= 20, "all")
    query.restart()
    assert max(sum(row.batch == batch for row in query.rows) for batch in range(query.committed)) <= 5


def test_the_buffer_is_bounded_and_reading_goes_on_as_it_empties(
    kinesis: Any, kinesis_endpoint: str, stream: str
) -> None:
    expected = put(kinesis, stream, 0, 400, size=20_000)
    options = {"fetchBufferSize": "1mb", "maxRecordsPerFetch": "10", "maxBytesPerTrigger": "500kb"}
    query = MicroBatches(kinesis_endpoint, stream, options)
    held = 0
    while len(query.rows) < 400:
        query.step()
        held = max(held, (query.reader.reportLatestOffset() or {"buffered_bytes": 0})["buffered_bytes"])
    query.restart()
    assert sorted(query.data()) == expected
    assert held <= 1024 * 1024 + 2 * 10 * 20_000, "the bound, and one answer a shard"


def test_available_now_reads_all_there_is_in_limited_batches_and_ends_though_more_arrives(
    kinesis: Any, kinesis_endpoint: str, stream: str
) -> None:
    expected = put(kinesis, stream, 0, 100)
    query = MicroBatches(kinesis_endpoint, stream, {"maxRecordsPerTrigger": "30"}, available_now=True)
    query.step()
    query.step()
    put(kinesis, stream, 100, 50)
    query.drain()
    query.restart()
    assert sorted(query.data())[:100] == expected
    assert len(query.rows) < 150, "what arrived after the start is left for the next run"
    query.drain()
    query.restart()
    assert len(query.data()) == len(set(query.data())) == 150
    query.drain()
    query.restart()
    assert len(query.data()) == 150


def test_a_trigger_that_wants_everything_gets_everything_in_one_batch(
    kinesis: Any, kinesis_endpoint: str, stream: str
) -> None:
    expected = put(kinesis, stream, 0, 100)
    options = {"maxRecordsPerTrigger": "10", "maxRecordsPerFetch": "7"}
    query = MicroBatches(kinesis_endpoint, stream, options)
    query.step()
    rows = query.step(ReadAllAvailable())
    query.restart()
    assert sorted(row.data for row in rows or []) == expected


def test_far_behind_executors_read_to_planned_bounds_and_near_the_tip_the_driver_takes_over(
    kinesis: Any, kinesis_endpoint: str, stream: str
) -> None:
    """Records of some seconds' arrival; a second behind counts as far."""
    expected: list[bytes] = []
    for n in range(0, 1000, 40):
        expected += put(kinesis, stream, n, 40)
        time.sleep(0.1)  # the span of time is what is tested
    options = {"catchUpThreshold": "1s", "maxRecordsPerTrigger": "400", "maxRecordsPerFetch": "100"}
    query = MicroBatches(kinesis_endpoint, stream, options)
    query.until(lambda rows: len(rows) >= 500, "about half")
    query.plan_and_crash()
    query.until(lambda rows: len(rows) >= 1000, "all that was there")
    assert query.ranges > 1, "executors read"
    ranges = query.ranges
    expected += put(kinesis, stream, 1000, 100)
    query.until(lambda rows: len(rows) >= 1100, "the tip")
    assert query.ranges == ranges, "at the tip the driver reads"
    query.restart()
    assert sorted(query.data()) == expected
    sizes = [sum(row.batch == batch for row in query.rows) for batch in range(query.committed)]
    assert max(sizes) <= 3 * 400, "planned by density, not counted"


def test_no_batch_ends_inside_an_aggregated_record(kinesis: Any, kinesis_endpoint: str, new_stream: NewStream) -> None:
    stream = new_stream(kinesis_endpoint, 1)
    for record in range(10):
        aggregator = RecordAggregator()
        for user in range(6):
            aggregator.add_user_record(f"user-{user}", f"{record}-{user}".encode())
        packed = aggregator.clear_and_get().get_contents()[2]
        kinesis.put_record(StreamName=stream, Data=packed, PartitionKey="packed")
    query = MicroBatches(kinesis_endpoint, stream, {"maxRecordsPerTrigger": "10"})
    query.until(lambda rows: len(rows) >= 60, "all")
    query.restart()
    assert query.data() == [f"{record}-{user}".encode() for record in range(10) for user in range(6)]
    assert query.rows[0].key == "user-0"
    batches: dict[bytes, set[int]] = {}
    for row in query.rows:
        batches.setdefault(row.data.split(b"-")[0], set()).add(row.batch)
    assert all(len(of_record) == 1 for of_record in batches.values())


def test_several_streams_are_read_by_one_query(kinesis: Any, kinesis_endpoint: str, new_stream: NewStream) -> None:
    one, two = new_stream(kinesis_endpoint, 1), new_stream(kinesis_endpoint, 2)
    expected = put(kinesis, one, 0, 20) + put(kinesis, two, 20, 20)
    query = MicroBatches(kinesis_endpoint, f"{one}, {two}")
    query.until(lambda rows: len(rows) >= 40, "all")
    query.restart()
    assert sorted(query.data()) == expected


def test_progress_tells_each_shards_records_bytes_and_distance_from_the_tip(
    kinesis: Any, kinesis_endpoint: str, stream: str
) -> None:
    put(kinesis, stream, 0, 40)
    query = MicroBatches(kinesis_endpoint, stream)
    query.until(lambda rows: len(rows) >= 40, "all")
    shards = query.progress()
    query.restart()
    assert [shard.shard for shard in shards] == ["shardId-000000000000", "shardId-000000000001"]
    assert sum(shard.records for shard in shards) == 40
    assert sum(shard.bytes for shard in shards) == 40 * 6
    assert {shard.behind_ms for shard in shards} == {0}


def test_an_idle_query_changes_no_offset(kinesis: Any, kinesis_endpoint: str, stream: str) -> None:
    put(kinesis, stream, 0, 10)
    query = MicroBatches(kinesis_endpoint, stream)
    query.until(lambda rows: len(rows) >= 10, "all")
    quiet = 0
    while quiet < 5:
        quiet = quiet + 1 if query.step() is None else 0
    batches = len(query.log)
    assert [query.step() for _ in range(10)] == [None] * 10
    assert len(query.log) == batches
    query.restart()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"streamName": "nobody-made-this"}, StreamMissingError, ["nobody-made-this", "streamName", "region"]),
        ({"region": "eu-west-3"}, StreamMissingError, ["eu-west-3", "region"]),
        ({"roleArn": "not-an-arn", "stsEndpoint": "http://127.0.0.1:9"}, Exception, [""]),
    ],
)
def test_a_query_that_cannot_begin_is_refused_at_start_with_the_mend(
    kinesis_endpoint: str, stream: str, options: dict[str, str], error: type[Exception], words: list[str]
) -> None:
    query = MicroBatches(kinesis_endpoint, stream, {"maxRetryDuration": "200ms", **options})
    with pytest.raises(error) as raised:
        query.step()
    assert all(word in str(raised.value) for word in words)


def test_missing_credentials_are_said_to_be_missing(
    kinesis_endpoint: str, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    reader = KinesisStreamReader(
        parse_options({"streamName": stream, "region": REGION, "endpointUrl": kinesis_endpoint, "idleWait": "51ms"})
    )
    with pytest.raises(DeniedError, match="no credentials"):
        reader.initialOffset()


def test_a_checkpoint_of_another_stream_is_refused(
    kinesis: Any, kinesis_endpoint: str, new_stream: NewStream, stream: str
) -> None:
    put(kinesis, stream, 0, 10)
    query = MicroBatches(kinesis_endpoint, stream)
    query.until(lambda rows: len(rows) >= 10, "all")
    query.restart()
    other = MicroBatches(kinesis_endpoint, new_stream(kinesis_endpoint, 1), log=query.log, committed=query.committed)
    with pytest.raises(OffsetError, match=f"{stream}.*streamName"):
        other.step()
    other.restart()


def test_a_role_is_assumed_and_used(kinesis: Any, kinesis_endpoint: str, stream: str) -> None:
    expected = put(kinesis, stream, 0, 10)
    options = {
        "roleArn": "arn:aws:iam::000000000000:role/reader",
        "roleExternalId": "external-id",
        "roleSessionName": "session",
        "stsEndpoint": kinesis_endpoint,
    }
    query = MicroBatches(kinesis_endpoint, stream, options)
    query.until(lambda rows: len(rows) >= 10, "all")
    query.restart()
    assert sorted(query.data()) == expected


SECRET = "do-not-show-this-4711"


def test_secrets_are_in_no_log_no_offset_no_task_text_and_no_error(
    kinesis: Any, kinesis_endpoint: str, stream: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    put(kinesis, stream, 0, 10)
    options = {"awsAccessKey": "AKIDEXAMPLE", "awsSecretKey": SECRET, "awsSessionToken": SECRET, "idleWait": "52ms"}
    query = MicroBatches(kinesis_endpoint, stream, options)
    query.until(lambda rows: len(rows) >= 10, "all")
    tasks = query.reader.partitions(json.loads(query.log[0]), json.loads(query.log[-1]))
    texts = [*query.log, repr(list(tasks)), repr(query.reader._options), caplog.text, json.dumps(str(query.progress()))]
    texts += [pickle.dumps(task).decode("latin-1") for task in tasks]
    query.restart()
    with pytest.raises(OptionError) as refused:
        parse_options({"streamName": stream, "awsSecretKey": SECRET})
    assert all(SECRET not in text for text in [*texts, str(refused.value)])


def test_the_source_is_registered_under_its_name_with_databricks_row_schema() -> None:
    assert LakestreamKinesis.name() == "lakestream_kinesis"
    schema = LakestreamKinesis({"streamName": "s"}).schema()
    assert schema == (
        "partitionKey string, data binary, stream string, shardId string, sequenceNumber string, "
        "approximateArrivalTimestamp timestamp"
    )


def test_a_stopped_query_leaves_no_thread_that_reads(kinesis: Any, kinesis_endpoint: str, stream: str) -> None:
    import threading  # noqa: PLC0415

    put(kinesis, stream, 0, 10)
    query = MicroBatches(kinesis_endpoint, stream)
    query.until(lambda rows: len(rows) >= 10, "all")
    names = {thread.name for thread in threading.enumerate() if stream in thread.name}
    assert len(names) == 2
    query.restart()
    until(lambda: not any(stream in thread.name for thread in threading.enumerate()), "the threads end")
