"""The driver's threads: what they hold is bounded, what fails in them is said where the query plans."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from streaming_job.kinesis.backlog import Backlog, Segment
from streaming_job.kinesis.catalog import DESCRIBE_MS, Catalog
from streaming_job.kinesis.errors import DataLossError, ThrottledError
from streaming_job.kinesis.fetch import Counters, SubscribedReader
from streaming_job.kinesis.offsets import Offset, Position
from streaming_job.kinesis.options import Options, parse_options
from streaming_job.kinesis.prefetch import Prefetcher
from streaming_job.kinesis.progress import progress_of
from streaming_job.kinesis.rows import Rows
from streaming_job.kinesis.shards import initial_offset
from streaming_job.kinesis.tail import Tail
from tests.unit.kinesis_memory import DAY_MS, HandClock, MemoryKinesis
from tests.unit.test_kinesis_fetch import LIMITS

LIMIT = (1_000, 1_000_000)


@pytest.fixture
def kinesis() -> MemoryKinesis:
    return MemoryKinesis(clock=HandClock(ms=time.time_ns() // 1_000_000))


def options_of(**given: str) -> Options:
    return parse_options({"streamName": "s", "idleWait": "20ms", "shardFetchInterval": "1s", **given})


@contextmanager
def prefetching(
    kinesis: MemoryKinesis, options: Options, consumers: dict[str, str] | None = None
) -> Iterator[Prefetcher]:
    catalog = Catalog(
        kinesis, ["s"], kinesis.clock, refresh_ms=options.shards_refresh_ms, retry_ms_max=options.retry_ms_max
    )
    prefetcher = Prefetcher(kinesis, options, catalog, consumers)
    try:
        yield prefetcher
    finally:
        prefetcher.stop()


def start_of(kinesis: MemoryKinesis, position: Position | None = None) -> Offset:
    listing = {"s": kinesis.list_shards("s")}
    return initial_offset([kinesis.info()], listing, position or Position.trim_horizon()).written()


def plan_until_moved(prefetcher: Prefetcher, offset: Offset) -> Offset:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        planned = prefetcher.plan(offset, LIMIT)
        if planned != offset:
            return planned
    raise AssertionError("nothing was planned")


class ApiBugError(Exception):
    """Of no kind that the source knows."""


@pytest.mark.parametrize("error", [ApiBugError("odd"), DataLossError("lost")])
def test_whatever_fails_in_a_thread_is_raised_where_the_query_plans(kinesis: MemoryKinesis, error: Exception) -> None:
    kinesis.faults.append(error)
    with prefetching(kinesis, options_of()) as prefetcher, pytest.raises(type(error)):
        plan_until_moved(prefetcher, start_of(kinesis))


def test_a_plan_asked_for_again_from_the_same_place_is_the_same_rows(kinesis: MemoryKinesis) -> None:
    sequences = kinesis.put("shardId-0", b"a", b"b")
    with prefetching(kinesis, options_of()) as prefetcher:
        start = start_of(kinesis)
        first = plan_until_moved(prefetcher, start)
        kinesis.put("shardId-0", b"c")
        again = prefetcher.plan(start, (2, 1_000))
        assert first.positions()[kinesis.ref()].sequence == sequences[1]
        assert again.positions()[kinesis.ref()].sequence == sequences[1]


def test_a_query_sent_back_to_an_earlier_place_reads_from_there(kinesis: MemoryKinesis) -> None:
    first = kinesis.put("shardId-0", b"a")
    with prefetching(kinesis, options_of()) as prefetcher:
        start = start_of(kinesis)
        second = plan_until_moved(prefetcher, start)
        kinesis.put("shardId-0", b"b")
        plan_until_moved(prefetcher, second)
        assert plan_until_moved(prefetcher, start).positions()[kinesis.ref()].sequence >= first[0]


def test_a_shard_that_kinesis_forgot_before_it_was_read_is_a_loss_by_name(kinesis: MemoryKinesis) -> None:
    start = start_of(kinesis)
    kinesis.shards = {"shardId-9": kinesis.shards["shardId-0"]}
    with prefetching(kinesis, options_of()) as prefetcher, pytest.raises(DataLossError, match="s/shardId-0"):
        prefetcher.plan(start, LIMIT)
    with prefetching(kinesis, options_of(failOnDataLoss="false")) as prefetcher:
        planned = plan_until_moved(prefetcher, start)
        assert prefetcher.counters[kinesis.ref()].losses == 1
        assert kinesis.ref("shardId-9") in planned.positions()


def test_when_an_idle_shard_was_last_seen_is_written_down_before_it_gets_too_old(kinesis: MemoryKinesis) -> None:
    old_ms = kinesis.clock.ms - DAY_MS // 20
    fresh_ms = kinesis.clock.ms
    with prefetching(kinesis, options_of()) as prefetcher:
        stale = start_of(kinesis, Position.at(old_ms, seen_ms=old_ms))
        assert plan_until_moved(prefetcher, stale).positions()[kinesis.ref()].seen_ms >= fresh_ms
    with prefetching(kinesis, options_of()) as prefetcher:
        recent = start_of(kinesis, Position.at(fresh_ms, seen_ms=fresh_ms))
        assert all(prefetcher.plan(recent, LIMIT) == recent for _ in range(20))


def test_a_changed_retention_is_taken_up_while_the_query_runs(kinesis: MemoryKinesis) -> None:
    kinesis.put("shardId-0", b"a")
    with prefetching(kinesis, options_of()) as prefetcher:
        offset = plan_until_moved(prefetcher, start_of(kinesis))
        tail = prefetcher.tails[kinesis.ref()]
        kinesis.retention_ms = 7 * DAY_MS
        kinesis.clock.ms += DESCRIBE_MS
        prefetcher.plan(offset, LIMIT)
        assert prefetcher.tails[kinesis.ref()] is not tail


def test_a_shards_children_are_read_in_the_batch_after_its_end(kinesis: MemoryKinesis) -> None:
    kinesis.put("shardId-0", b"parent")
    kinesis.split("shardId-0", "shardId-1", "shardId-2")
    kinesis.put("shardId-1", b"child")
    with prefetching(kinesis, options_of()) as prefetcher:
        offset = start_of(kinesis)
        closed = offset
        while not closed.positions()[kinesis.ref()].is_closed:
            offset, closed = closed, plan_until_moved(prefetcher, closed)
        children = [kinesis.ref(name) for name in ("shardId-1", "shardId-2")]
        assert all(closed.positions()[child].is_unread for child in children)
        after = closed
        while after.positions()[children[0]].is_unread:
            after = plan_until_moved(prefetcher, after)


def test_a_subscription_that_ends_or_is_refused_is_made_again_where_the_last_event_stopped(
    kinesis: MemoryKinesis,
) -> None:
    kinesis.page = 1
    kinesis.put("shardId-0", *[bytes([n]) for n in range(7)])
    reader = SubscribedReader(
        kinesis, kinesis.ref(), Position.trim_horizon(), LIMITS, kinesis.clock, consumer_arn="arn"
    )
    data: list[bytes] = []
    while len(data) < 7:
        if len(data) == 3:
            kinesis.faults.append(ThrottledError("ResourceInUseException"))
        data += reader.read().rows.data
    assert data == [bytes([n]) for n in range(7)]
    assert kinesis.calls.count("subscribe") >= 4
    assert reader.counters.throttles >= 1


def test_a_query_that_stops_leaves_no_subscription_open(kinesis: MemoryKinesis) -> None:
    """Left to the garbage collector it would keep the shard's next reader out, and fail while it is collected."""
    kinesis.put("shardId-0", b"a")
    with prefetching(kinesis, options_of(), {"s": "arn"}) as prefetcher:
        plan_until_moved(prefetcher, start_of(kinesis))
    assert "subscribe" in kinesis.calls
    deadline = time.monotonic() + 20
    while kinesis.subscriptions and time.monotonic() < deadline:
        time.sleep(0.01)
    assert kinesis.subscriptions == 0


def test_a_plan_holds_what_arrived_just_before_it(kinesis: MemoryKinesis) -> None:
    """Nobody looks at the tip between two plans, so the record can only have come by a look that the plan asked for."""
    kinesis.put("shardId-0", b"a")
    with prefetching(kinesis, options_of()) as prefetcher:
        offset = plan_until_moved(prefetcher, start_of(kinesis))
        tail = prefetcher.tails[kinesis.ref()]
        while tail.backlog.tip_ms == 0 or tail.due_ms > 0:
            time.sleep(0.01)
        [newest] = kinesis.put("shardId-0", b"b")
        assert prefetcher.plan(offset, LIMIT).positions()[kinesis.ref()].sequence == newest


class AppendedMeanwhile(Segment):
    """While its bytes are counted a shard's thread comes with the next, as far as it is let."""

    def __init__(self, prefetcher: Prefetcher, backlog: Backlog) -> None:
        super().__init__(Position.after("1"), Rows(), 0, 0)
        self._prefetcher = prefetcher
        self._backlog = backlog

    @property
    def held_bytes(self) -> int:
        thread = threading.Thread(target=self._append, daemon=True)
        thread.start()
        thread.join(0.1)
        return super().held_bytes

    def _append(self) -> None:
        with self._prefetcher.changed:
            self._backlog.add(Rows(), Position.after("2"))


def test_progress_is_told_while_the_shards_threads_read(kinesis: MemoryKinesis) -> None:
    with prefetching(kinesis, options_of()) as prefetcher:
        tail = Tail(prefetcher, kinesis.ref(), Position.trim_horizon(), LIMITS, Counters())
        tail.backlog.segments.append(AppendedMeanwhile(prefetcher, tail.backlog))
        prefetcher.tails[kinesis.ref()] = tail
        assert progress_of(prefetcher)["buffered_bytes"] == 0
