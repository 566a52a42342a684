"""GetRecords' bodies as Kinesis and its emulators write them."""

import base64
import json
from typing import Any

import pytest

from streaming_job.kinesis.answers import answer_of


def body(*records: Any, **more: Any) -> bytes:
    return json.dumps({"Records": records, **more}).encode()


def record(data: bytes, sequence: str = "4967", arrival_s: float = 1_795_323_146.019) -> dict[str, Any]:
    return {
        "SequenceNumber": sequence,
        "ApproximateArrivalTimestamp": arrival_s,
        "Data": base64.b64encode(data).decode(),
        "PartitionKey": "key-é",
        "EncryptionType": "KMS",
    }


def test_records_come_out_byte_for_byte_in_order_with_times_in_milliseconds() -> None:
    every_byte = bytes(range(256))
    answer = answer_of(
        body(
            record(b"", "1"),
            record(every_byte, "2", 1_795_323_147),
            MillisBehindLatest=7,
            NextShardIterator="next",
            ChildShards=[],
        )
    )
    assert answer.rows.data == [b"", every_byte]
    assert answer.rows.keys == ["key-é", "key-é"]
    assert answer.rows.arrivals_ms == [1_795_323_146_019, 1_795_323_147_000]
    assert (answer.sequences, answer.arrival_ms) == (("1", "2"), 1_795_323_147_000)
    assert (answer.behind_ms, answer.next_iterator) == (7, "next")


def test_a_shards_end_has_no_next_iterator_whether_it_is_null_or_missing() -> None:
    for ended in (body(), body(NextShardIterator=None, MillisBehindLatest=None)):
        answer = answer_of(ended)
        assert (answer.next_iterator, answer.behind_ms, answer.sequences) == (None, 0, ())


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        body(record(b"data"))[:-9],
        b'{"Records":null}',
        body({"SequenceNumber": "1"}),
        body(record(b"x") | {"Data": "%"}),
    ],
    ids=["empty", "cut off", "no records", "not whole", "not base64"],
)
def test_an_answer_that_is_none_is_an_error_and_never_fewer_records(broken: bytes) -> None:
    with pytest.raises(ValueError):
        answer_of(broken)
