"""The source, driven call by call as Spark drives it: no thread, no clock."""

import json
from random import Random
from typing import Any

from tests.simulation.clock import HandClock, MachineClock
from tests.simulation.kinesis import SimKinesis
from tests.simulation.source import SteppedReader


def reader_of(kinesis: SimKinesis, **options: str) -> SteppedReader:
    return SteppedReader(options, kinesis, MachineClock(kinesis.clock), Random(0))


def planned(reader: SteppedReader, start: dict[str, Any]) -> dict[str, Any]:
    """The next end that is worth a batch, through the text that Spark keeps."""
    while (end := reader.latestOffset(start, reader.getDefaultReadLimit())) == start:
        pass
    return dict(json.loads(json.dumps(end)))


def rows(reader: SteppedReader, start: dict[str, Any], end: dict[str, Any]) -> list[bytes]:
    batches = (batch for partition in reader.partitions(start, end) for batch in reader.read(partition))
    return [data for batch in batches for data in batch.column("data").to_pylist()]


def test_a_child_found_and_read_by_the_very_same_plan_loses_nothing() -> None:
    """The parent's end is planned while the listing is still the old one, so no offset names the child before."""
    kinesis = SimKinesis.of(1, first_sequence=10**20, clock=HandClock())
    reader = reader_of(kinesis, shardFetchInterval="60s")
    offset = planned(reader, reader.initialOffset())
    kinesis.put("shardId-000000000000", b"parent")
    offset = planned(reader, offset)
    kinesis.split_at(0)
    kinesis.put("shardId-000000000001", b"child")
    offset = planned(reader, offset)
    assert "shardId-000000000001" not in offset["streams"][kinesis.stream]["shards"]
    end = planned(reader, offset)
    assert rows(reader, offset, end) == [b"child"]
    assert rows(reader_of(kinesis), offset, end) == [b"child"]
