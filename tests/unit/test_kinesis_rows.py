"""Rows: aggregated records come apart exactly, and Spark gets what Kinesis had."""

import hashlib
import subprocess
import sys

import pytest
from aws_kinesis_agg.aggregator import RecordAggregator
from hypothesis import given
from hypothesis import strategies as st

from streaming_job.kinesis.kpl import AGGREGATED_MAGIC
from streaming_job.kinesis.rows import Rows, deaggregate, from_ipc, to_ipc

user_records = st.lists(st.tuples(st.text(min_size=1, max_size=20), st.binary(max_size=50)), min_size=1, max_size=20)


def md5(message: bytes) -> bytes:
    return hashlib.md5(message, usedforsecurity=False).digest()


def aggregated(users: list[tuple[str, bytes]]) -> bytes:
    aggregator = RecordAggregator()
    for key, data in users:
        aggregator.add_user_record(key, data)
    packed: bytes = aggregator.clear_and_get().get_contents()[2]
    return packed


@given(user_records)
def test_an_aggregated_record_gives_each_user_record_under_its_own_key_and_the_records_sequence(
    users: list[tuple[str, bytes]],
) -> None:
    rows = deaggregate(Rows.of(["1", "2"], [10, 20], ["packed", "plain"], [aggregated(users), b"plain"]))
    assert list(zip(rows.keys, rows.data, strict=True)) == [*users, ("plain", b"plain")]
    assert rows.sequences == ["1"] * len(users) + ["2"]
    assert rows.arrivals_ms == [10] * len(users) + [20]
    assert rows.size == sum(len(data) for _, data in users) + 5


@pytest.mark.parametrize(
    "data",
    [
        AGGREGATED_MAGIC,
        AGGREGATED_MAGIC + b"short",
        AGGREGATED_MAGIC + b"\x0a\x01k" + b"\x00" * 16,
        AGGREGATED_MAGIC + b"\xff\xff" + md5(b"\xff\xff"),
        AGGREGATED_MAGIC + b"\x1a\x7f\x08" + md5(b"\x1a\x7f\x08"),
        AGGREGATED_MAGIC + b"\x1a\x02\x08\x05" + md5(b"\x1a\x02\x08\x05"),
    ],
)
def test_a_record_that_only_looks_aggregated_is_one_user_record(data: bytes) -> None:
    rows = deaggregate(Rows.of(["1"], [10], ["k"], [data]))
    assert (rows.keys, rows.data) == (["k"], [data])


def test_an_aggregated_record_that_holds_nothing_gives_no_rows() -> None:
    message = b"\x0a\x01k"
    rows = deaggregate(Rows.of(["1"], [10], ["k"], [AGGREGATED_MAGIC + message + md5(message)]))
    assert len(rows) == 0


def test_rows_reach_spark_as_they_were() -> None:
    rows = Rows.of(["7", "8"], [1_700_000_000_123, 1_700_000_000_124], ["ä", "b"], [b"\x00\xff", b""])
    [batch] = from_ipc(to_ipc([rows.to_arrow("s", "shardId-0")]))
    assert batch.to_pydict()["data"] == [b"\x00\xff", b""]
    assert batch.to_pydict()["partitionKey"] == ["ä", "b"]
    assert batch.to_pydict()["sequenceNumber"] == ["7", "8"]
    assert [moment.timestamp() for moment in batch.to_pydict()["approximateArrivalTimestamp"]] == [
        1_700_000_000.123,
        1_700_000_000.124,
    ]
    assert set(batch.to_pydict()["stream"]) == {"s"}
    assert set(batch.to_pydict()["shardId"]) == {"shardId-0"}


FIRST_ROWS = """
import sys
from streaming_job.kinesis.rows import Rows, get_ready
get_ready()
loaded = set(sys.modules)
Rows.of(["1"], [10], ["k"], [b"data"]).to_arrow("s", "shardId-0")
print(sorted(set(sys.modules) - loaded))
"""


def test_a_process_that_got_ready_loads_nothing_more_for_its_first_rows() -> None:
    done = subprocess.run([sys.executable, "-c", FIRST_ROWS], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["[]"]


def test_rows_before_a_start_time_and_after_an_end_time_are_left_out() -> None:
    rows = Rows.of(["1", "2", "3"], [10, 20, 30], ["k"] * 3, [b"a", b"b", b"c"])
    assert rows.from_ms(15).sequences == ["2", "3"]
    assert rows.until_ms(25).sequences == ["1", "2"]
    assert rows.until_ms(5).sequences == []
    assert rows.through("2").sequences == ["1", "2"]
