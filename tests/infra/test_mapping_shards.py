"""The mapping on a stream of several shards, which no emulator has: the real threads, positions and lanes."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from infra.local.lineage import Shard
from infra.local.mapping.event import Change
from infra.local.mapping.outcome import Failed, Outcome, Returned
from infra.local.mapping.shard import POLL_EVERY_S
from infra.local.mapping.stream import ExpiredError, StreamGoneError
from tests.support.local_workers import until
from tests.support.sharded_stream import PAGE, Keeping, Recording, Running, ShardedStream


def service_error(code: str, status: int) -> ClientError:
    response: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "GetRecords")


@pytest.fixture
def stream() -> ShardedStream:
    return ShardedStream([Shard("s")])


@pytest.fixture
def function() -> Recording:
    return Recording()


@pytest.fixture
def start(tmp_path: Path, stream: ShardedStream, function: Recording) -> Iterator[Callable[..., Running]]:
    running: list[Running] = []

    def begin(**knobs: Any) -> Running:
        running.append(Running(tmp_path, stream, function, **knobs))
        return running[-1]

    yield begin
    for each in running:
        each.stop.set()
        each.ended()


def test_a_shards_children_are_read_after_all_of_the_shard(
    stream: ShardedStream, function: Recording, start: Callable[..., Running]
) -> None:
    stream.lineage[:] = [
        Shard("a", (), closed=True),
        Shard("b", (), closed=True),
        Shard("a1", ("a",), closed=True),
        Shard("a2", ("a",)),
        Shard("ab", ("a1", "b")),
    ]
    for shard in ("ab", "a2", "a1", "b", "a"):
        stream.put(shard, 120)
    running = start()
    until(lambda: sorted(function.numbers) == stream.everything, "all shards are read")
    order = [record["shard"] for record in function.succeeded]
    for parent, child in (("a", "a1"), ("a", "a2"), ("a1", "ab"), ("b", "ab")):
        assert max(i for i, shard in enumerate(order) if shard == parent) < order.index(child), (parent, child)
    running.end()
    assert running.positions.finished == {"a", "b", "a1"}


def test_a_shard_that_appears_while_running_is_read_from_its_first_change(
    stream: ShardedStream, function: Recording, start: Callable[..., Running]
) -> None:
    stream.put("s", 10)
    running = start()
    until(lambda: len(function.numbers) == 10, "the parent is read")
    stream.put("child", 10)
    stream.lineage[:] = [Shard("s", (), closed=True), Shard("child", ("s",))]
    until(lambda: len(function.numbers) == 20, "the child is read")
    running.end()


def test_a_poison_record_holds_up_its_own_shard_and_no_other(
    stream: ShardedStream, function: Recording, start: Callable[..., Running]
) -> None:
    stream.lineage[:] = [Shard("bad"), Shard("good")]
    stream.put("bad", 5)
    stream.page_records_max = 1000
    stream.put("good", 500)
    function.answer = lambda records: Failed("E", "no") if records[0]["shard"] == "bad" else Returned(None)
    running = start()
    until(lambda: len(function.numbers) == 500, "the good shard is read")
    assert {record["shard"] for record in function.succeeded} == {"good"}
    assert running.positions.after("bad") is None
    running.end()


def test_as_many_batches_of_a_shard_run_at_once_as_the_factor_allows_and_items_stay_in_order(
    stream: ShardedStream, function: Recording, start: Callable[..., Running]
) -> None:
    """Four invocations meet at a barrier, which three could never pass; then the rest goes its way."""
    stream.page_records_max = 1000
    stream.put("s", 1000, items=40)
    together = threading.Barrier(4)
    first = threading.local()

    def meet(_: list[dict[str, Any]]) -> Outcome:
        if not getattr(first, "met", False):
            first.met = True
            together.wait(30)
        return Returned(None)

    function.answer = meet
    running = start(parallelization=4)
    until(lambda: len(function.numbers) == 1000, "all is read")
    by_item: dict[str, list[int]] = defaultdict(list)
    for record in function.succeeded:
        by_item[record["item"]].append(record["number"])
    assert all(numbers == sorted(numbers) for numbers in by_item.values())
    running.end()
    assert running.positions.after("s") == stream.records["s"][-1].sequence


def test_an_item_never_is_in_two_batches_at_once(
    stream: ShardedStream, function: Recording, start: Callable[..., Running]
) -> None:
    stream.page_records_max = 1000
    stream.put("s", 600, items=7)
    busy: set[str] = set()
    lock = threading.Lock()
    overlaps: list[str] = []

    def check(records: list[dict[str, Any]]) -> Outcome:
        items = {record["item"] for record in records}
        with lock:
            overlaps.extend(items & busy)
            busy.update(items)
        time.sleep(0.001)
        with lock:
            busy.difference_update(items)
        return Returned(None)

    function.answer = check
    running = start(parallelization=5)
    until(lambda: len(function.numbers) == 600, "all is read")
    assert overlaps == []
    running.end()


def test_an_idle_shard_is_polled_four_times_a_second_and_no_more(
    stream: ShardedStream, start: Callable[..., Running]
) -> None:
    running = start()
    until(lambda: len(stream.polls["s"]) >= 6, "six polls")
    running.end()
    gaps = [later - earlier for earlier, later in zip(stream.polls["s"], stream.polls["s"][1:], strict=False)]
    assert min(gaps) > POLL_EVERY_S * 0.9


@pytest.mark.parametrize(
    "fault",
    [
        ExpiredError("old"),
        EndpointConnectionError(endpoint_url="stream"),
        service_error("ThrottlingException", 400),
        service_error("InternalServerError", 500),
    ],
    ids=["expired iterator", "unreachable", "throttled", "server error"],
)
def test_a_fault_while_reading_neither_loses_nor_repeats_a_change(
    stream: ShardedStream, function: Recording, start: Callable[..., Running], fault: Exception
) -> None:
    stream.put("s", PAGE * 3)
    stream.faults[:] = [fault]
    running = start()
    until(lambda: len(function.numbers) >= PAGE, "the first page is read")
    stream.faults[:] = [fault, fault]
    stream.put("s", 20)
    until(lambda: len(function.numbers) >= PAGE * 3 + 20, "all is read")
    running.end()
    assert function.numbers == stream.everything


def test_a_position_that_left_the_stream_is_told_and_the_rest_is_read(
    stream: ShardedStream,
    function: Recording,
    start: Callable[..., Running],
    capsys: pytest.CaptureFixture[str],
) -> None:
    stream.put("s", 20)
    running = start()
    until(lambda: len(function.numbers) == 20, "all is read")
    running.end()
    stream.put("s", 80)
    stream.trimmed["s"] = 60
    running = start()
    until(lambda: len(function.numbers) == 60, "what is left is read")
    assert function.numbers[20:] == list(range(60, 100))
    assert running.metric("lakestream_mapping_positions_trimmed_total") == 1
    assert "position_trimmed" in capsys.readouterr().out
    running.end()


def test_a_mapping_that_was_stopped_goes_on_where_it_was(
    stream: ShardedStream, function: Recording, start: Callable[..., Running]
) -> None:
    stream.put("s", 100)
    running = start()
    until(lambda: len(function.numbers) >= 30, "some is read")
    running.end()
    stream.put("s", 50)
    running = start()
    until(lambda: len(function.numbers) >= 150, "all is read")
    running.end()
    assert function.numbers == stream.everything


def test_latest_leaves_out_what_was_there_and_nothing_of_the_children(
    stream: ShardedStream, function: Recording, start: Callable[..., Running]
) -> None:
    stream.lineage[:] = [Shard("closed", (), closed=True), Shard("open", ("closed",))]
    stream.put("closed", 10)
    stream.put("open", 10)
    running = start(start="LATEST")
    until(lambda: stream.polls["open"], "the open shard is polled")
    stream.put("open", 1)
    stream.put("child", 1)
    stream.lineage[1:] = [Shard("open", ("closed",), closed=True), Shard("child", ("open",))]
    until(lambda: len(function.numbers) == 2, "the new changes are read")
    running.end()
    assert function.numbers == [20, 21]


def test_what_is_given_up_is_at_its_destination_before_the_position_passes_it(
    stream: ShardedStream, function: Recording, start: Callable[..., Running]
) -> None:
    stream.put("s", 30)
    function.answer = lambda records: Failed("E", "no") if records[0]["number"] == 0 else Returned(None)
    destination = Keeping(refusals=2)
    running = start(retries_max=1, destination=destination)
    until(lambda: len(function.numbers) == 20, "the rest is read")
    (discard,) = destination.sent
    assert len(discard.batch.changes) == 10
    assert running.metric("lakestream_mapping_destination_failures_total") == 2
    assert running.metric("lakestream_mapping_discarded_records_total", condition="RetryAttemptsExhausted") == 10
    running.end()
    assert running.positions.after("s") == stream.records["s"][-1].sequence


def test_a_mapping_that_stops_before_the_destination_took_it_sends_it_after_the_next_start(
    stream: ShardedStream, function: Recording, start: Callable[..., Running]
) -> None:
    stream.put("s", 5)
    function.answer = lambda _: Failed("E", "no")
    running = start(retries_max=0, destination=Keeping(refusals=1_000_000))
    until(lambda: running.metric("lakestream_mapping_destination_failures_total") >= 1, "it is refused")
    running.end()
    assert running.positions.after("s") is None
    destination = Keeping()
    running = start(retries_max=0, destination=destination)
    until(lambda: destination.sent, "it is sent")
    running.end()


def test_a_shard_is_not_read_ahead_of_a_function_that_is_stuck(
    stream: ShardedStream, function: Recording, start: Callable[..., Running]
) -> None:
    stream.page_records_max = 1000
    stream.put("s", 3000)
    release = threading.Event()

    def stuck(_: list[dict[str, Any]]) -> Outcome:
        release.wait(30)
        return Returned(None)

    function.answer = stuck
    running = start()
    until(lambda: stream.polls["s"] and time.monotonic() - stream.polls["s"][-1] > POLL_EVERY_S * 4, "polls stop")
    assert running.metric("lakestream_mapping_backlog_records", shard="s") <= 2000
    release.set()
    until(lambda: len(function.numbers) == 3000, "all is read")
    running.end()


def test_a_stream_that_is_gone_ends_the_mapping(stream: ShardedStream, start: Callable[..., Running]) -> None:
    stream.faults[:] = [StreamGoneError("gone")]
    assert isinstance(start().ended(), StreamGoneError)


def test_an_error_nobody_foresaw_ends_the_mapping_and_is_not_swallowed(
    stream: ShardedStream, start: Callable[..., Running]
) -> None:
    stream.faults[:] = [ZeroDivisionError("a bug")]
    assert isinstance(start().ended(), ZeroDivisionError)


def test_iterator_age_and_counts_are_measured(
    stream: ShardedStream, function: Recording, start: Callable[..., Running]
) -> None:
    stream.put("s", 1)
    stream.records["s"][0] = Change("0" * 40, b"k", time.time() - 100, stream.records["s"][0].encoded)
    answers: Iterator[Outcome] = iter(
        [Failed("E", "no"), Returned({"batchItemFailures": [{"itemIdentifier": "0" * 40}]})]
    )
    function.answer = lambda _: next(answers, Returned(None))
    running = start()
    until(lambda: len(function.numbers) == 2, "it succeeds at last")
    running.end()
    assert 100 <= running.metric("lakestream_mapping_iterator_age_seconds", shard="s") < 160
    assert running.metric("lakestream_mapping_records_total", shard="s") == 1
    assert running.metric("lakestream_mapping_records_done_total", shard="s") == 1
    for outcome in ("error", "partial", "success"):
        assert running.metric("lakestream_mapping_invocations_total", outcome=outcome) == 1, outcome
