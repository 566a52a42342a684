"""Reading one shard through faults, and telling a trimmed shard from an idle one."""

from collections.abc import Generator
from dataclasses import dataclass, replace

import pytest

from streaming_job.kinesis.errors import (
    DataLossError,
    DeniedError,
    IteratorExpiredError,
    ThrottledError,
    TransientError,
    UnavailableError,
)
from streaming_job.kinesis.fetch import Answer, FetchLimits, ShardReader, SubscribedReader, read_through
from streaming_job.kinesis.offsets import Position, ShardRef
from tests.unit.kinesis_memory import DAY_MS, HOUR_MS, MemoryKinesis

LIMITS = FetchLimits(
    records_max=10_000, poll_ms=200, mb_s_max=0, retry_ms_max=60_000, retention_ms=DAY_MS, fail_on_data_loss=True
)


def reader_of(kinesis: MemoryKinesis, start: Position, limits: FetchLimits = LIMITS) -> ShardReader:
    return ShardReader(kinesis, kinesis.ref(), start, limits, kinesis.clock)


def test_a_shard_is_read_in_order_and_the_position_follows() -> None:
    kinesis = MemoryKinesis(page=2)
    sequences = kinesis.put("shardId-0", b"a", b"b", b"c")
    reader = reader_of(kinesis, Position.trim_horizon())
    assert reader.read().rows.data == [b"a", b"b"]
    assert reader.position.sequence == sequences[1]
    assert reader.read().rows.data == [b"c"]
    assert reader.read().rows.data == []
    assert reader.position.sequence == sequences[2]


def test_a_shard_is_read_at_most_five_times_a_second() -> None:
    kinesis = MemoryKinesis()
    reader = reader_of(kinesis, Position.trim_horizon())
    began_ms = kinesis.clock.ms
    for _ in range(26):
        reader.read()
    assert kinesis.clock.ms - began_ms >= 5_000


def test_a_rate_in_bytes_is_kept() -> None:
    kinesis = MemoryKinesis(page=1)
    kinesis.put("shardId-0", *[b"x" * 1_000_000] * 5)
    reader = reader_of(kinesis, Position.trim_horizon(), replace(LIMITS, mb_s_max=0.5))
    began_ms = kinesis.clock.ms
    for _ in range(5):
        reader.read()
    assert kinesis.clock.ms - began_ms >= 8_000


@pytest.mark.parametrize(
    ("fault", "counter"),
    [
        (ThrottledError("t"), "throttles"),
        (TransientError("reset"), "retries"),
        (IteratorExpiredError("e"), "expired_iterators"),
    ],
)
def test_faults_that_pass_are_retried_counted_and_lose_nothing(fault: Exception, counter: str) -> None:
    kinesis = MemoryKinesis(page=1)
    kinesis.put("shardId-0", b"a", b"b", b"c")
    reader = reader_of(kinesis, Position.trim_horizon())
    data = list(reader.read().rows.data)
    kinesis.faults.extend([fault] * 3)
    data += reader.read().rows.data
    data += reader.read().rows.data
    assert data == [b"a", b"b", b"c"]
    assert getattr(reader.counters, counter) == 3


def test_an_iterator_that_expired_while_the_reader_slept_is_taken_anew_at_the_same_place() -> None:
    kinesis = MemoryKinesis(page=1)
    kinesis.put("shardId-0", b"a", b"b")
    reader = reader_of(kinesis, Position.trim_horizon())
    assert reader.read().rows.data == [b"a"]
    kinesis.expire_iterators()
    assert reader.read().rows.data == [b"b"]


def test_faults_that_do_not_pass_end_in_an_error_that_says_the_position_is_safe() -> None:
    kinesis = MemoryKinesis()
    kinesis.faults.extend([TransientError("connection reset")] * 1000)
    with pytest.raises(UnavailableError, match=r"s/shardId-0.*connection reset.*same position"):
        reader_of(kinesis, Position.trim_horizon()).read()
    assert kinesis.clock.slept_ms >= 60_000


def test_a_refusal_is_not_retried() -> None:
    kinesis = MemoryKinesis()
    kinesis.faults.extend([DeniedError("no"), TransientError("never reached")])
    with pytest.raises(DeniedError):
        reader_of(kinesis, Position.trim_horizon()).read()
    assert len(kinesis.faults) == 1


def test_a_start_time_is_exact_to_the_millisecond_although_kinesis_finds_only_the_place() -> None:
    kinesis = MemoryKinesis()
    kinesis.clock.ms = 1_800_000_000_100
    kinesis.put("shardId-0", b"before")
    kinesis.clock.ms += 400
    start_ms = kinesis.clock.ms
    kinesis.put("shardId-0", b"at")
    assert reader_of(kinesis, Position.at(start_ms)).read().rows.data == [b"at"]


def read_some(kinesis: MemoryKinesis) -> ShardReader:
    """A reader that has read one record, at the tip."""
    kinesis.put("shardId-0", b"a")
    reader = reader_of(kinesis, Position.trim_horizon())
    reader.read()
    return reader


def test_records_trimmed_while_the_query_stood_still_are_a_loss_that_names_shard_position_and_mend() -> None:
    kinesis = MemoryKinesis()
    reader = read_some(kinesis)
    kinesis.clock.ms += HOUR_MS
    kinesis.put("shardId-0", b"never read")
    kinesis.clock.ms += DAY_MS + 1
    [left] = kinesis.put("shardId-0", b"c")
    with pytest.raises(DataLossError) as error:
        reader_of(kinesis, reader.position).read()
    for part in ("s/shardId-0", reader.position.sequence, left, "failOnDataLoss=false"):
        assert part in str(error.value)


def test_a_loss_that_was_allowed_is_counted_and_reading_goes_on() -> None:
    kinesis = MemoryKinesis()
    reader = read_some(kinesis)
    kinesis.clock.ms += 2 * DAY_MS
    kinesis.put("shardId-0", b"c")
    tolerant = reader_of(kinesis, reader.position, replace(LIMITS, fail_on_data_loss=False))
    assert tolerant.read().rows.data == [b"c"]
    assert tolerant.counters.losses == 1


def test_a_shard_idle_for_longer_than_the_retention_is_no_loss_while_it_is_read() -> None:
    """Its last record was trimmed long ago, but it was seen at the tip since."""
    kinesis = MemoryKinesis()
    reader = read_some(kinesis)
    for _ in range(100):
        kinesis.clock.ms += HOUR_MS
        reader.read()
    kinesis.put("shardId-0", b"b")
    assert reader_of(kinesis, reader.position).read().rows.data == [b"b"]


def test_a_query_that_was_down_for_less_than_the_retention_after_a_quiet_week_has_lost_nothing() -> None:
    kinesis = MemoryKinesis()
    reader = read_some(kinesis)
    kinesis.clock.ms += 7 * DAY_MS
    seen = reader.position.seen(kinesis.clock.ms)
    kinesis.clock.ms += 20 * HOUR_MS
    kinesis.put("shardId-0", b"b")
    assert reader_of(kinesis, seen).read().rows.data == [b"b"]


def test_a_record_at_the_edge_of_the_retention_that_is_still_there_proves_that_nothing_is_lost() -> None:
    kinesis = MemoryKinesis(page=1)
    reader = read_some(kinesis)
    kinesis.put("shardId-0", b"b")
    kinesis.clock.ms += DAY_MS - 1_000
    assert reader_of(kinesis, reader.position).read().rows.data == [b"b"]


def test_a_reader_overtaken_by_the_retention_while_it_runs_stops() -> None:
    """Its iterator goes on as if nothing had happened: only the times tell."""
    kinesis = MemoryKinesis(page=1)
    kinesis.put("shardId-0", b"a", b"b")
    reader = reader_of(kinesis, Position.trim_horizon())
    reader.read()
    kinesis.clock.ms += DAY_MS + HOUR_MS
    kinesis.put("shardId-0", b"c")
    with pytest.raises(DataLossError):
        reader.read()


@pytest.mark.parametrize("expected", [0, 1, 4, 1000])
def test_a_range_is_exactly_what_lies_between_its_bounds(expected: int) -> None:
    kinesis = MemoryKinesis(page=3)
    sequences = kinesis.put("shardId-0", *[bytes([n]) for n in range(20)])
    reader = reader_of(kinesis, Position.after(sequences[4]))
    data = [each for rows in read_through(reader, Position.after(sequences[12]), expected) for each in rows.data]
    assert data == [bytes([n]) for n in range(5, 13)]


def test_a_range_to_a_shards_end_is_read_to_its_last_record() -> None:
    kinesis = MemoryKinesis(page=3)
    sequences = kinesis.put("shardId-0", *[bytes([n]) for n in range(8)])
    kinesis.split("shardId-0", "shardId-1", "shardId-2")
    reader = reader_of(kinesis, Position.trim_horizon())
    data = [each for rows in read_through(reader, Position.closed(sequences[-1])) for each in rows.data]
    assert data == [bytes([n]) for n in range(8)]


def test_a_range_whose_end_was_trimmed_is_a_loss_and_never_a_shorter_batch() -> None:
    kinesis = MemoryKinesis()
    sequences = kinesis.put("shardId-0", b"a", b"b")
    kinesis.clock.ms += DAY_MS + 1
    reader = reader_of(kinesis, Position.trim_horizon())
    with pytest.raises(DataLossError, match=sequences[1]):
        list(read_through(reader, Position.after(sequences[1])))
    kinesis.put("shardId-0", b"c")
    with pytest.raises(DataLossError, match=sequences[1]):
        list(read_through(reader_of(kinesis, Position.trim_horizon()), Position.after(sequences[1])))


def test_a_first_batch_run_again_after_the_horizon_moved_over_its_beginning_is_a_loss_and_never_shorter() -> None:
    kinesis = MemoryKinesis()
    early = kinesis.put("shardId-0", b"a")
    kinesis.clock.ms += HOUR_MS
    late = kinesis.put("shardId-0", b"b")
    end = replace(Position.after(late[0]), first=early[0])
    again = reader_of(kinesis, Position.trim_horizon())
    assert [data for rows in read_through(again, end) for data in rows.data] == [b"a", b"b"]
    kinesis.clock.ms += DAY_MS - HOUR_MS // 2
    with pytest.raises(DataLossError, match=early[0]):
        list(read_through(reader_of(kinesis, Position.trim_horizon()), end))


@dataclass
class PushingKinesis(MemoryKinesis):
    """What it pushes lies in the socket until it is taken; one that waits is sent an event a few seconds later."""

    lying: int = 0

    def subscribe(self, consumer_arn: str, ref: ShardRef, position: Position) -> Generator[Answer]:
        iterator: str | None = self.iterator(ref, position)
        in_socket: list[Answer] = []
        while iterator is not None:
            if not in_socket:
                self.clock.ms += 0 if self.lying else 5_000
                for _ in range(max(1, self.lying)):
                    in_socket.append(self.get_records(iterator, 10_000))
                    iterator = in_socket[-1].next_iterator or iterator
                self.lying = 0
            yield in_socket.pop(0)


def test_what_is_pushed_is_dated_when_it_was_under_way_and_not_when_it_was_taken() -> None:
    """While the reader waited for room the events lay in the socket: what has arrived since is in none of them."""
    kinesis = PushingKinesis(lying=3)
    kinesis.put("shardId-0", b"a")
    reader = SubscribedReader(
        kinesis, kinesis.ref(), Position.trim_horizon(), LIMITS, kinesis.clock, consumer_arn="arn"
    )
    sent_ms = kinesis.clock.ms
    assert reader.read().rows.data == [b"a"]
    kinesis.put("shardId-0", b"arrived meanwhile")
    kinesis.clock.ms += HOUR_MS
    for _ in range(2):
        assert reader.read().rows.data == []
        assert reader.position.seen_ms == sent_ms == reader.asked_ms
    assert reader.read().rows.data == [b"arrived meanwhile"]
    assert reader.position.seen_ms == reader.asked_ms == sent_ms + HOUR_MS


def test_a_reader_that_waited_for_a_push_knows_that_nothing_arrived_before_it_did() -> None:
    kinesis = PushingKinesis()
    reader = SubscribedReader(
        kinesis, kinesis.ref(), Position.trim_horizon(), LIMITS, kinesis.clock, consumer_arn="arn"
    )
    for _ in range(3):
        waits_from_ms = kinesis.clock.ms
        reader.read()
        assert reader.asked_ms == waits_from_ms
