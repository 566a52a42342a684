"""When a shard is looked at: at its tip when a plan asks, beside executors seldom, else without a pause."""

import threading
from itertools import pairwise

import pytest

from streaming_job.kinesis.catalog import Catalog
from streaming_job.kinesis.fetch import Clock
from streaming_job.kinesis.offsets import Position
from streaming_job.kinesis.option_table import POLL_MS_MIN
from streaming_job.kinesis.options import parse_options
from streaming_job.kinesis.prefetch import Prefetcher
from streaming_job.kinesis.shards import initial_offset
from streaming_job.kinesis.tail import (
    AT_TIP_MS,
    BESIDE_EXECUTORS_MS,
    FIRST_RECORD_BYTES,
    FIRST_RECORDS,
    LOOK_MS_MAX,
    Tail,
)
from tests.unit.kinesis_memory import HandClock, MemoryKinesis, MemoryShard

LIMIT = (1_000, 1_000_000)
MINUTE_MS = 60_000


class ByHand(Prefetcher):
    """Its tails take a turn when the test says so, on the test's clock."""

    def clock_until(self, stopped: threading.Event) -> Clock:
        return self._clock

    def _begin(self, tail: Tail) -> None:
        """No thread."""

    @property
    def only(self) -> Tail:
        (tail,) = self.tails.values()
        return tail

    def has_turn(self) -> bool:
        return self.only.has_turn(self.held_bytes(), self.options.buffer_bytes_max)

    def asks(self) -> None:
        self.asked_ms = self._clock.now_ms()


@pytest.fixture
def kinesis() -> MemoryKinesis:
    return MemoryKinesis(clock=HandClock())


def by_hand(kinesis: MemoryKinesis, **given: str) -> ByHand:
    options = parse_options({"streamName": "s", "idleWait": "0ms", "catchUpThreshold": "10s", **given})
    catalog = Catalog(kinesis, ["s"], kinesis.clock, refresh_ms=1_000, retry_ms_max=1_000)
    prefetcher = ByHand(kinesis, options, catalog, clock=kinesis.clock)
    listing = {"s": kinesis.list_shards("s")}
    prefetcher.plan(initial_offset([kinesis.info()], listing, Position.trim_horizon()).written(), LIMIT)
    return prefetcher


def looks(kinesis: MemoryKinesis) -> int:
    return kinesis.calls.count("get_records")


def test_a_shard_is_read_on_until_its_tip_and_there_only_when_a_plan_asks_or_a_second_has_passed(
    kinesis: MemoryKinesis,
) -> None:
    kinesis.put("shardId-0", *[b"x"] * (FIRST_RECORDS + 1))
    prefetcher = by_hand(kinesis)
    assert prefetcher.has_turn()
    prefetcher.only.turn()
    assert not prefetcher.has_turn(), "five calls a second are the most"
    kinesis.clock.ms += POLL_MS_MIN
    assert prefetcher.has_turn(), "one record is left"
    prefetcher.only.turn()
    kinesis.clock.ms += POLL_MS_MIN
    assert not prefetcher.has_turn()
    prefetcher.asks()
    assert prefetcher.has_turn()
    prefetcher.only.turn()
    kinesis.clock.ms += POLL_MS_MIN
    assert not prefetcher.has_turn(), "it has looked since"
    kinesis.clock.ms += AT_TIP_MS
    assert prefetcher.has_turn()


def test_a_plan_waits_for_a_look_that_may_be_made_soon_and_for_no_other(kinesis: MemoryKinesis) -> None:
    prefetcher = by_hand(kinesis)
    prefetcher.only.turn()
    kinesis.clock.ms += POLL_MS_MIN - LOOK_MS_MAX
    prefetcher.asks()
    assert not prefetcher.only.is_awaited()
    kinesis.clock.ms += 1
    prefetcher.asks()
    assert prefetcher.only.is_awaited()


def test_a_plan_waits_for_a_look_that_is_under_way(kinesis: MemoryKinesis) -> None:
    """Asked while the answer is being given: by then the pace holds back the next look, not this one."""
    prefetcher = by_hand(kinesis)
    prefetcher.only.turn()
    kinesis.clock.ms += POLL_MS_MIN
    prefetcher.asks()
    kinesis.meanwhile = lambda: awaited.append(prefetcher.only.is_awaited())
    awaited: list[bool] = []
    prefetcher.only.turn()
    assert awaited == [True]
    assert not prefetcher.only.is_awaited()


def test_a_clock_that_was_set_back_does_not_keep_a_shard_waiting(kinesis: MemoryKinesis) -> None:
    prefetcher = by_hand(kinesis)
    prefetcher.only.turn()
    kinesis.clock.ms -= 60 * MINUTE_MS
    assert prefetcher.has_turn()


def test_for_available_now_a_shard_at_its_tip_is_read_until_its_end_is_known(kinesis: MemoryKinesis) -> None:
    prefetcher = by_hand(kinesis)
    prefetcher.read_until_now()
    prefetcher.only.turn()
    while not prefetcher.only.finished:
        kinesis.clock.ms += POLL_MS_MIN
        assert prefetcher.has_turn()
        prefetcher.only.turn()


def test_while_executors_read_a_shard_it_is_looked_at_once_a_second(kinesis: MemoryKinesis) -> None:
    """Five calls a second are for both."""
    for _ in range(100):
        kinesis.put("shardId-0", *[b"x"] * 100)
        kinesis.clock.ms += 1_000
    prefetcher = by_hand(kinesis, maxRecordsPerTrigger="500")
    prefetcher.only.turn()
    prefetcher.only.turn()
    assert prefetcher.only.backlog.spans == 1
    kinesis.clock.ms += POLL_MS_MIN
    prefetcher.asks()
    assert not prefetcher.has_turn()
    assert not prefetcher.only.is_awaited(), "its backlog is enough for a plan"
    kinesis.clock.ms += BESIDE_EXECUTORS_MS
    assert prefetcher.has_turn()


def test_a_stream_that_went_quiet_long_ago_is_not_searched_for_records_past_its_last(kinesis: MemoryKinesis) -> None:
    kinesis.put("shardId-0", *[b"x"] * (FIRST_RECORDS + 500))
    kinesis.clock.ms += 30 * MINUTE_MS
    prefetcher = by_hand(kinesis)
    prefetcher.only.turn()
    before = looks(kinesis)
    prefetcher.only.turn()
    assert looks(kinesis) == before + 1, "one look says that nothing has arrived since"
    prefetcher.only.turn()
    assert prefetcher.only.backlog.available[0] == FIRST_RECORDS + 500


def test_a_span_is_as_long_as_a_batch_where_records_came_by_large_put_records(kinesis: MemoryKinesis) -> None:
    """A sample of them comes in one millisecond: taken for the stream's density, it would cut every batch short."""
    sequences = []
    for _ in range(200):
        sequences += kinesis.put("shardId-0", *[b"x"] * 500)
        kinesis.clock.ms += 500
    prefetcher = by_hand(kinesis, maxRecordsPerTrigger="10000")
    for _ in range(4):
        prefetcher.only.turn()
        kinesis.clock.ms += POLL_MS_MIN
    read, *spans = prefetcher.only.backlog.segments
    places = [sequences.index(part.end.sequence) for part in (read, *spans)]
    assert len(spans) == 3
    assert all(3_000 < after - before <= 10_000 for before, after in pairwise(places)), places


def test_of_many_shards_each_is_asked_for_its_part_of_the_buffer(kinesis: MemoryKinesis) -> None:
    """A full buffer holds no shard back from its first answers: of hundreds of shards those would be gigabytes."""
    buffer_bytes = 64 * 1024**2
    kinesis.shards = {f"shardId-{n}": MemoryShard() for n in range(100)}
    for shard in kinesis.shards:
        kinesis.put(shard, *[b"x" * 1_024] * FIRST_RECORDS)
    prefetcher = by_hand(kinesis, fetchBufferSize=str(buffer_bytes))
    for tail in prefetcher.tails.values():
        tail.turn()
    held = prefetcher.held_bytes()
    assert held == 100 * (buffer_bytes // 100 // FIRST_RECORD_BYTES) * 1_024
    for tail in prefetcher.tails.values():
        tail.turn()
    assert 0.9 * buffer_bytes < prefetcher.held_bytes() - held <= buffer_bytes
