"""What Kinesis answers, as rows: GetRecords' body in one pass, and what a subscription pushes."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from streaming_job.kinesis.fetch import Answer
from streaming_job.kinesis.rows import Rows, deaggregate


class _Record(msgspec.Struct, gc=False):
    sequence: str = msgspec.field(name="SequenceNumber")
    arrival_s: float = msgspec.field(name="ApproximateArrivalTimestamp")
    key: str = msgspec.field(name="PartitionKey")
    data: bytes = msgspec.field(name="Data")


class _GetRecords(msgspec.Struct):
    records: list[_Record] = msgspec.field(name="Records")
    behind_ms: int | None = msgspec.field(name="MillisBehindLatest", default=None)
    next_iterator: str | None = msgspec.field(name="NextShardIterator", default=None)


_READ: Final = msgspec.json.Decoder(_GetRecords).decode


def answer_of(body: bytes) -> Answer:
    """An answer of 10,000 records is 13 MB of JSON: base64 and all it is read without a copy of its texts."""
    try:
        read = _READ(body)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from error
    records = read.records
    rows = Rows.of(
        [record.sequence for record in records],
        [round(record.arrival_s * 1000) for record in records],
        [record.key for record in records],
        [record.data for record in records],
    )
    return _answer(rows, read.behind_ms, read.next_iterator)


def pushed(event: Mapping[str, Any]) -> Answer:
    """Of botocore's SubscribeToShardEvent."""
    records = event["Records"]
    rows = Rows.of(
        [record["SequenceNumber"] for record in records],
        [round(record["ApproximateArrivalTimestamp"].timestamp() * 1000) for record in records],
        [record["PartitionKey"] for record in records],
        [record["Data"] for record in records],
    )
    # A shard's last event names its children and has nothing to continue with.
    continues_at = None if event.get("ChildShards") else event.get("ContinuationSequenceNumber")
    return _answer(rows, event.get("MillisBehindLatest"), continues_at)


def _answer(rows: Rows, behind_ms: int | None, next_iterator: str | None) -> Answer:
    return Answer(
        rows=deaggregate(rows),
        sequences=tuple(rows.sequences),
        arrival_ms=rows.arrivals_ms[-1] if rows else 0,
        behind_ms=behind_ms or 0,
        next_iterator=next_iterator,
    )
