"""The source, driven call by call as Spark drives it: no thread, no clock."""

import json
from random import Random
from typing import Any

import pytest

from streaming_job.kinesis.errors import DataLossError
from tests.simulation.clock import HOUR_MS, HandClock, MachineClock
from tests.simulation.kinesis import SimKinesis
from tests.simulation.source import SteppedReader


def reader_of(kinesis: SimKinesis, **options: str) -> SteppedReader:
    return SteppedReader(options, kinesis, MachineClock(kinesis.clock), Random(0))


def planned(reader: SteppedReader, start: dict[str, Any]) -> dict[str, Any]:
    """The next end that is worth a batch, through the text that Spark keeps."""
    while (end := reader.latestOffset(start, reader.getDefaultReadLimit())) == start:
        pass
    return dict(json.loads(json.dumps(end)))


def begun(kinesis: SimKinesis) -> dict[str, Any]:
    """A query that has seen the stream's tip once."""
    reader = reader_of(kinesis)
    return planned(reader, planned(reader, reader.initialOffset()))


def rows(reader: SteppedReader, start: dict[str, Any], end: dict[str, Any]) -> list[bytes]:
    batches = (batch for partition in reader.partitions(start, end) for batch in reader.read(partition))
    return [bytes(data or b"") for batch in batches for data in batch.column("data").to_pylist()]


def old_stream() -> SimKinesis:
    """Of one shard, and older than anything it keeps."""
    return SimKinesis.of(1, first_sequence=10**20, clock=HandClock(), created_ms=0)


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


def test_records_of_a_child_that_are_gone_stop_the_job_although_its_parents_end_was_read_in_time() -> None:
    """Reading a closed shard to its end says nothing of what its children have waited with since."""
    kinesis = old_stream()
    offset = begun(kinesis)
    reader = reader_of(kinesis, shardFetchInterval="1h")
    kinesis.put("shardId-000000000000", b"before")
    offset = planned(reader, offset)
    kinesis.put("shardId-000000000000", b"parent")
    kinesis.split_at(0)
    kinesis.put("shardId-000000000001", b"child")
    kinesis.clock.ms += HOUR_MS // 2
    offset = planned(reader, offset)
    kinesis.clock.ms += 23 * HOUR_MS + 3 * HOUR_MS // 4
    with pytest.raises(DataLossError, match="shardId-000000000001"):
        planned(reader_of(kinesis), offset)


def test_a_query_that_began_and_never_read_does_not_pass_over_what_was_trimmed_since() -> None:
    """Its start was written down; what arrived after it and is gone was asked for."""
    kinesis = old_stream()
    reader = reader_of(kinesis)
    offset = planned(reader, reader.initialOffset())
    kinesis.clock.ms += HOUR_MS
    kinesis.put("shardId-000000000000", b"asked for")
    kinesis.clock.ms += 25 * HOUR_MS
    with pytest.raises(DataLossError):
        planned(reader_of(kinesis), offset)


def test_a_new_query_reads_all_there_is_on_an_old_and_busy_stream_that_was_split() -> None:
    """What is trimmed while it catches up with a parent is no loss as long as the child has it all."""
    kinesis = old_stream()
    kinesis.put("shardId-000000000000", b"old")
    kinesis.clock.ms += 22 * HOUR_MS
    kinesis.put("shardId-000000000000", b"parent")
    kinesis.split_at(0)
    kinesis.put("shardId-000000000001", b"child")
    reader = reader_of(kinesis)
    offset, held = reader.initialOffset(), []
    while b"parent" not in held:
        end = planned(reader, offset)
        held += rows(reader, offset, end)
        offset = end
    kinesis.clock.ms += 4 * HOUR_MS
    slow = reader_of(kinesis)
    while b"child" not in held:
        end = planned(slow, offset)
        assert rows(reader_of(kinesis), offset, end) == rows(slow, offset, end)
        held += rows(slow, offset, end)
        offset = end
    assert held == [b"old", b"parent", b"child"]


def test_a_stream_younger_than_its_retention_has_lost_nothing_however_long_nobody_read_it() -> None:
    kinesis = SimKinesis.of(1, first_sequence=10**20, clock=HandClock(), created_ms=HandClock().ms)
    reader = reader_of(kinesis)
    offset = planned(reader, reader.initialOffset())
    kinesis.put("shardId-000000000000", b"kept")
    kinesis.clock.ms += 23 * HOUR_MS
    again = reader_of(kinesis)
    assert rows(again, offset, planned(again, offset)) == [b"kept"]


def forgotten(kinesis: SimKinesis, *, has_read: bool) -> dict[str, Any]:
    """A query stopped before its shard's last record; the shard is gone by now, its child is there."""
    offset = begun(kinesis)
    if has_read:
        kinesis.put("shardId-000000000000", b"read")
        offset = planned(reader_of(kinesis), offset)
    kinesis.put("shardId-000000000000", b"never read")
    kinesis.split_at(0)
    kinesis.clock.ms += 25 * HOUR_MS
    kinesis.put("shardId-000000000001", b"child")
    return offset


@pytest.mark.parametrize("has_read", [False, True])
def test_a_shard_that_kinesis_forgot_is_passed_where_a_loss_is_allowed(*, has_read: bool) -> None:
    kinesis = old_stream()
    offset = forgotten(kinesis, has_read=has_read)
    with pytest.raises(DataLossError, match="shardId-000000000000"):
        planned(reader_of(kinesis), offset)
    reader, held = reader_of(kinesis, failOnDataLoss="false"), list[bytes]()
    while not held:
        end = planned(reader, offset)
        again = rows(reader_of(kinesis, failOnDataLoss="false"), offset, end)
        held = rows(reader, offset, end)
        assert again == held
        offset = end
    assert held == [b"child"]


def test_a_batch_of_a_shard_that_kinesis_forgot_since_it_was_planned_is_a_loss_by_name() -> None:
    """Cut off, and run again a day later: nothing of it is left, and the next plan goes on with the child."""
    kinesis = old_stream()
    offset = begun(kinesis)
    kinesis.put("shardId-000000000000", b"planned")
    end = planned(reader_of(kinesis), offset)
    kinesis.split_at(0)
    kinesis.clock.ms += 25 * HOUR_MS
    with pytest.raises(DataLossError, match="shardId-000000000000"):
        rows(reader_of(kinesis), offset, end)
    assert rows(reader_of(kinesis, failOnDataLoss="false"), offset, end) == []


def test_a_merges_child_is_no_loss_although_one_of_its_parents_was_silent_for_as_long_as_anything_is_kept() -> None:
    """It is born after both have ended: what is known of the livelier one holds for it."""
    kinesis = SimKinesis.of(2, first_sequence=10**20, clock=HandClock(), created_ms=0)
    kinesis.clock.ms += 30 * HOUR_MS
    kinesis.put("shardId-000000000001", *(b"%d" % i for i in range(6)))
    kinesis.merge_at(0)
    kinesis.put("shardId-000000000002", b"child")
    reader = reader_of(kinesis)
    offset, held = reader.initialOffset(), []
    while b"child" not in held:
        kinesis.read_faults.append("small page")
        end = planned(reader, offset)
        held += rows(reader, offset, end)
        offset = end
        kinesis.clock.ms += HOUR_MS // 12 if held else 0
    assert held == [b"0", b"1", b"2", b"3", b"4", b"5", b"child"]


def test_what_came_after_an_available_now_runs_start_does_not_count_as_read() -> None:
    """Its last look brings rows from before and after the start in one answer, and is at the tip."""
    kinesis = old_stream()
    offset = reader_of(kinesis).initialOffset()
    reader = reader_of(kinesis)
    reader.prepareForTriggerAvailableNow()
    offset = planned(reader, offset)
    kinesis.put("shardId-000000000000", b"a", b"b")
    kinesis.read_faults.append("small page")
    end = planned(reader, offset)
    assert rows(reader, offset, end) == [b"a"]
    kinesis.clock.ms += HOUR_MS
    kinesis.put("shardId-000000000000", b"after")
    kinesis.clock.ms += HOUR_MS
    offset = planned(reader, end)
    assert rows(reader, end, offset) == [b"b"]
    kinesis.clock.ms += 23 * HOUR_MS + HOUR_MS // 12
    with pytest.raises(DataLossError):
        planned(reader_of(kinesis), offset)


def keep_for(kinesis: SimKinesis, hours: int) -> None:
    """Another retention from now on; raised, it does not bring back what was trimmed before."""
    for shard in kinesis.shards.values():
        shard.records = [record for record in shard.records if record.arrival_ms >= kinesis.trimmed_before_ms()]
    kinesis.retention_ms = hours * HOUR_MS


def with_one_read(kinesis: SimKinesis) -> dict[str, Any]:
    offset = begun(kinesis)
    kinesis.put("shardId-000000000000", b"read")
    return planned(reader_of(kinesis), offset)


def test_a_retention_raised_when_records_were_trimmed_already_does_not_hide_their_loss() -> None:
    kinesis = old_stream()
    offset = with_one_read(kinesis)
    kinesis.clock.ms += HOUR_MS
    kinesis.put("shardId-000000000000", b"never read")
    kinesis.clock.ms += 25 * HOUR_MS
    keep_for(kinesis, 7 * 24)
    kinesis.put("shardId-000000000000", b"left")
    with pytest.raises(DataLossError):
        planned(reader_of(kinesis), offset)


def test_a_batch_run_again_after_the_retention_was_raised_too_late_is_a_loss_and_never_shorter() -> None:
    """Executors read it, who know the retention only as it is now."""
    kinesis = old_stream()
    offset = with_one_read(kinesis)
    kinesis.put("shardId-000000000000", b"planned, then trimmed")
    kinesis.clock.ms += 2 * HOUR_MS
    kinesis.put("shardId-000000000000", b"planned")
    end = planned(reader_of(kinesis), offset)
    kinesis.clock.ms += 23 * HOUR_MS
    keep_for(kinesis, 7 * 24)
    with pytest.raises(DataLossError):
        rows(reader_of(kinesis), offset, end)


def test_a_retention_raised_in_time_loses_nothing_and_stops_nothing() -> None:
    kinesis = old_stream()
    offset = with_one_read(kinesis)
    kinesis.clock.ms += HOUR_MS
    kinesis.put("shardId-000000000000", b"waits")
    kinesis.clock.ms += 20 * HOUR_MS
    keep_for(kinesis, 7 * 24)
    kinesis.clock.ms += 30 * HOUR_MS
    reader = reader_of(kinesis)
    end = planned(reader, offset)
    while not (held := rows(reader, offset, end)):
        offset, end = end, planned(reader, end)
    assert held == [b"waits"]


def test_a_child_that_waited_for_longer_than_was_kept_when_a_running_query_saw_the_retention_raised_is_read() -> None:
    """Of an unread shard no record proves that none before it is missing: it is known when the retention rose."""
    kinesis = old_stream()
    offset = with_one_read(kinesis)
    kinesis.put("shardId-000000000000", b"parent")
    kinesis.split_at(0)
    kinesis.put("shardId-000000000001", b"child")
    kinesis.clock.ms += 20 * HOUR_MS
    keep_for(kinesis, 7 * 24)
    held: list[bytes] = []
    while b"child" not in held:
        reader = reader_of(kinesis)
        end = planned(reader, offset)
        held += rows(reader, offset, end)
        kinesis.clock.ms += 0 if held == [] else 30 * HOUR_MS
        offset = end
    assert held == [b"parent", b"child"]


def test_an_idle_query_writes_a_changed_retention_down_at_once_and_by_itself() -> None:
    """Lowered and raised again, the lower one is what counts; an offset of an older release names none."""
    kinesis = old_stream()
    offset = with_one_read(kinesis)
    reader = reader_of(kinesis)
    del offset["streams"][kinesis.stream]["retention_ms"]
    for hours in (24, 168, 24):
        keep_for(kinesis, hours)
        kinesis.clock.ms += HOUR_MS // 10
        offset = planned(reader, offset)
        assert offset["streams"][kinesis.stream]["retention_ms"] == hours * HOUR_MS
        assert reader.latestOffset(offset, reader.getDefaultReadLimit()) == offset
