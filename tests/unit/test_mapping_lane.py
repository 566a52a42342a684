"""The mapping's decisions, against what AWS documents for DynamoDB streams: no clock, no network, no threads."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.local.mapping.event import Change
from infra.local.mapping.lane import Batch, Discard, Invoke, Lane, Policy, Wait
from infra.local.mapping.outcome import Failed, NotInvoked, Outcome, Returned

NOW_S = 1_000_000.0
DAY_S = 86_400
ERROR = Failed("ValueError", "no")
FINE = Returned(None)


def change(number: int, *, item: str = "a", age_s: float = 0, size: int = 10) -> Change:
    return Change(f"{number:030d}", item.encode(), NOW_S - age_s, b"x" * size)


def changes(count: int, **traits: Any) -> list[Change]:
    return [change(number, **traits) for number in range(count)]


def policy(**knobs: Any) -> Policy:
    defaults: dict[str, Any] = {
        "batch_records_max": 100,
        "window_s": 0,
        "bisect": False,
        "retries_max": -1,
        "age_max_s": -1,
        "report_failures": True,
        "backoff_first_s": 1,
        "backoff_longest_s": 8,
    }
    return Policy(**defaults | knobs)


def lane_with(records: Sequence[Change], **knobs: Any) -> Lane:
    lane = Lane(policy(**knobs))
    lane.add(records, NOW_S)
    return lane


def failing_at(index: int, batch: Batch) -> Returned:
    return Returned({"batchItemFailures": [{"itemIdentifier": batch.changes[index].sequence}]})


class Run:
    """Drives a lane to rest, as the mapping does, on a clock of its own; keeps what happened."""

    def __init__(self, lane: Lane, answer: Callable[[Batch], Outcome]) -> None:
        self.invoked: list[list[str]] = []
        self.discarded: list[Discard] = []
        self.done: list[Change] = []
        now_s = NOW_S
        for _ in range(10_000):
            action = lane.next(now_s)
            match action:
                case Wait(None):
                    return
                case Wait(until_s):
                    assert until_s is not None
                    assert until_s > now_s
                    now_s = until_s
                case Invoke(batch):
                    self.invoked.append(numbers(batch.changes))
                    self.done += lane.settle(answer(batch), now_s)
                case Discard():
                    self.discarded.append(action)
                    self.done += lane.discarded()
        raise AssertionError("the lane never comes to rest")


def numbers(records: Sequence[Change]) -> list[str]:
    return [str(int(record.sequence)) for record in records]


# --- batching ---------------------------------------------------------------------------------------------------------


def test_without_a_window_whatever_is_there_is_handed_over_at_once() -> None:
    action = lane_with(changes(3)).next(NOW_S)
    assert isinstance(action, Invoke)
    assert len(action.batch.changes) == 3


def test_a_batch_holds_no_more_records_than_the_batch_size() -> None:
    run = Run(lane_with(changes(250)), lambda _: FINE)
    assert [len(batch) for batch in run.invoked] == [100, 100, 50]


def test_a_window_is_counted_from_the_batchs_first_record() -> None:
    lane = lane_with(changes(1), window_s=5)
    lane.add([change(1)], NOW_S + 4)
    assert lane.next(NOW_S + 4) == Wait(NOW_S + 5)
    action = lane.next(NOW_S + 5)
    assert isinstance(action, Invoke)
    assert len(action.batch.changes) == 2


def test_a_full_batch_does_not_wait_for_its_window() -> None:
    assert isinstance(lane_with(changes(100), window_s=300).next(NOW_S), Invoke)


def test_a_payload_of_six_megabytes_does_not_wait_for_its_window() -> None:
    lane = lane_with(changes(7, size=1024 * 1024), window_s=300)
    action = lane.next(NOW_S)
    assert isinstance(action, Invoke)
    assert len(action.batch.changes) == 5, "six of one MiB, commas and frame are more than 6 MiB"


def test_the_end_of_a_shard_does_not_wait_for_a_window() -> None:
    lane = lane_with(changes(1), window_s=300)
    assert isinstance(lane.next(NOW_S), Wait)
    assert isinstance(lane.next(NOW_S, closing=True), Invoke)


# --- what a response says ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "response", [None, {}, "", {"batchItemFailures": []}, {"batchItemFailures": None}, {"statusCode": 200}]
)
def test_an_empty_or_null_answer_is_a_complete_success(response: Any) -> None:
    lane = lane_with(changes(3))
    lane.next(NOW_S)
    assert len(lane.settle(Returned(response), NOW_S)) == 3


@pytest.mark.parametrize(
    "response",
    [
        {"batchItemFailures": [{"itemIdentifier": ""}]},
        {"batchItemFailures": [{"itemIdentifier": None}]},
        {"batchItemFailures": [{"bad": f"{1:030d}"}]},
        {"batchItemFailures": [{"itemIdentifier": "of no record"}]},
        {"batchItemFailures": [{"itemIdentifier": f"{2:030d}"}, {"itemIdentifier": ""}]},
        {"batchItemFailures": [7]},
        {"batchItemFailures": "all"},
        "all well",
        [],
    ],
)
def test_an_answer_that_cannot_be_understood_is_a_complete_failure(response: Any) -> None:
    lane = lane_with(changes(3))
    lane.next(NOW_S)
    assert lane.settle(Returned(response), NOW_S) == ()
    again = lane.next(NOW_S + 1)
    assert isinstance(again, Invoke)
    assert len(again.batch.changes) == 3


def test_the_lowest_failed_sequence_number_is_the_checkpoint() -> None:
    lane = lane_with(changes(10))
    lane.next(NOW_S)
    named = [{"itemIdentifier": change(number).sequence} for number in (7, 4, 9)]
    assert numbers(lane.settle(Returned({"batchItemFailures": named}), NOW_S)) == ["0", "1", "2", "3"]
    again = lane.next(NOW_S + 1)
    assert isinstance(again, Invoke)
    assert numbers(again.batch.changes) == ["4", "5", "6", "7", "8", "9"]


def test_failures_are_not_looked_at_unless_the_mapping_asks_for_them() -> None:
    run = Run(lane_with(changes(3), report_failures=False), lambda batch: failing_at(0, batch))
    assert len(run.invoked) == 1
    assert len(run.done) == 3


# --- retries ----------------------------------------------------------------------------------------------------------


def test_a_batch_is_tried_once_and_then_as_often_as_retries_allow() -> None:
    run = Run(lane_with(changes(3), retries_max=2), lambda _: ERROR)
    assert run.invoked == [["0", "1", "2"]] * 3
    (discard,) = run.discarded
    assert discard.condition == "RetryAttemptsExhausted"
    assert discard.batch.invocations == 3
    assert discard.batch.outcome == ERROR


def test_no_retries_give_up_after_the_first_failure() -> None:
    run = Run(lane_with(changes(3), retries_max=0), lambda _: ERROR)
    assert len(run.invoked) == 1
    assert len(run.discarded) == 1


def test_a_partial_failure_uses_up_a_retry_when_nothing_is_split() -> None:
    run = Run(lane_with(changes(4), retries_max=1), lambda batch: failing_at(min(1, len(batch.changes) - 1), batch))
    assert run.invoked == [["0", "1", "2", "3"], ["1", "2", "3"]]
    assert [numbers(discard.batch.changes) for discard in run.discarded] == [["2", "3"]]


def test_endless_retries_end_when_the_records_have_left_the_stream() -> None:
    lane = lane_with(changes(2), retries_max=-1, age_max_s=-1)
    for second in range(0, DAY_S, 600):
        assert isinstance(lane.next(NOW_S + second), Invoke)
        lane.settle(ERROR, NOW_S + second)
    action = lane.next(NOW_S + DAY_S + 1)
    assert isinstance(action, Discard)
    assert action.condition == "RecordAgeExceeded"


def test_waiting_grows_to_its_limit_and_starts_over_after_a_success() -> None:
    lane = lane_with(changes(200))
    now_s, waits = NOW_S, []
    for _ in range(6):
        lane.next(now_s)
        lane.settle(ERROR, now_s)
        action = lane.next(now_s)
        assert isinstance(action, Wait)
        assert action.until_s is not None
        waits.append(action.until_s - now_s)
        now_s = action.until_s
    assert waits == [1, 2, 4, 8, 8, 8]
    lane.next(now_s)
    lane.settle(FINE, now_s)
    assert isinstance(lane.next(now_s), Invoke), "the next batch does not wait for the last one's failures"


def test_what_could_not_be_invoked_uses_up_no_retry() -> None:
    answers = iter([NotInvoked("throttled")] * 5 + [ERROR])
    run = Run(lane_with(changes(1), retries_max=0), lambda _: next(answers))
    assert len(run.invoked) == 6
    assert run.discarded[0].batch.invocations == 1


# --- age --------------------------------------------------------------------------------------------------------------


def test_records_past_their_age_are_given_up_without_an_invocation() -> None:
    records = [change(0, age_s=120), change(1, age_s=61), change(2, age_s=59), change(3)]
    run = Run(lane_with(records, age_max_s=60), lambda _: FINE)
    (discard,) = run.discarded
    assert discard.condition == "RecordAgeExceeded"
    assert numbers(discard.batch.changes) == ["0", "1"]
    assert discard.batch.invocations == 0
    assert discard.batch.outcome is None
    assert run.invoked == [["2", "3"]]


def test_a_failing_batch_is_given_up_once_it_is_too_old() -> None:
    run = Run(lane_with(changes(2), age_max_s=60, retries_max=-1), lambda _: ERROR)
    (discard,) = run.discarded
    assert discard.condition == "RecordAgeExceeded"
    assert discard.batch.invocations == len(run.invoked)


# --- bisect -----------------------------------------------------------------------------------------------------------


def poisoned(*bad: int) -> Callable[[Batch], Outcome]:
    """A function that raises when the batch holds a poison record."""
    return lambda batch: ERROR if {str(number) for number in bad} & set(numbers(batch.changes)) else FINE


def test_bisect_corners_the_poison_record_and_lets_all_others_through() -> None:
    run = Run(lane_with(changes(8), bisect=True, retries_max=0), poisoned(5))
    assert [numbers(discard.batch.changes) for discard in run.discarded] == [["5"]]
    assert run.invoked == [
        ["0", "1", "2", "3", "4", "5", "6", "7"],
        ["0", "1", "2", "3"],
        ["4", "5", "6", "7"],
        ["4", "5"],
        ["4"],
        ["5"],
        ["6", "7"],
    ]


def test_splitting_uses_up_no_retry() -> None:
    run = Run(lane_with(changes(8), bisect=True, retries_max=2), poisoned(5))
    assert run.invoked.count(["5"]) == 3
    (discard,) = run.discarded
    assert discard.batch.retries == 2


def test_without_bisect_a_poison_record_takes_its_batch_with_it() -> None:
    run = Run(lane_with(changes(8), retries_max=1), poisoned(5))
    assert [len(discard.batch.changes) for discard in run.discarded] == [8]


def test_a_partial_failure_splits_at_the_returned_number_and_only_the_rest_is_tried_again() -> None:
    answers = iter([3, None])

    def answer(batch: Batch) -> Outcome:
        index = next(answers)
        return FINE if index is None else failing_at(index, batch)

    run = Run(lane_with(changes(8), bisect=True, retries_max=0), answer)
    assert run.invoked == [[str(number) for number in range(8)], ["3", "4", "5", "6", "7"]]
    assert run.discarded == []


def test_a_record_that_always_fails_is_cornered_when_both_are_on() -> None:
    def answer(batch: Batch) -> Outcome:
        bad = [index for index, number in enumerate(numbers(batch.changes)) if number == "3"]
        return failing_at(bad[0], batch) if bad else FINE

    run = Run(lane_with(changes(8), bisect=True, retries_max=1), answer)
    assert [numbers(discard.batch.changes) for discard in run.discarded] == [["3"]]
    assert numbers(run.done) == [str(number) for number in range(8)]


def test_the_second_half_of_a_split_keeps_the_retries_that_were_used() -> None:
    answers = iter([ERROR, ERROR])  # whole, first half of one record; then the second half fails as well
    run = Run(lane_with(changes(2), bisect=True, retries_max=0), lambda _: next(answers, ERROR))
    assert run.invoked == [["0", "1"], ["0"], ["1"]]
    assert [numbers(discard.batch.changes) for discard in run.discarded] == [["0"], ["1"]]


# --- whatever happens -------------------------------------------------------------------------------------------------

OUTCOMES = st.sampled_from(["fine", "error", "partial", "not invoked"])


@settings(max_examples=int(os.environ.get("LAKESTREAM_EXAMPLES", "200")), deadline=None)
@given(
    count=st.integers(1, 60),
    size=st.integers(1, 20),
    bisect=st.booleans(),
    retries_max=st.integers(0, 3),
    sizes=st.lists(st.integers(1, 300), min_size=1, max_size=5),
    poison=st.sets(st.integers(0, 59), max_size=3),
    outcomes=st.lists(st.tuples(OUTCOMES, st.integers(0, 19)), max_size=80),
)
def test_every_change_is_done_once_in_order_and_nothing_overtakes_a_failure(
    *,
    count: int,
    size: int,
    bisect: bool,
    retries_max: int,
    sizes: list[int],
    poison: set[int],
    outcomes: list[tuple[str, int]],
) -> None:
    records = [change(number, size=sizes[number % len(sizes)]) for number in range(count)]
    script = iter(outcomes)
    lane = Lane(policy(batch_records_max=size, bisect=bisect, retries_max=retries_max, batch_bytes_max=500))
    lane.add(records, NOW_S)
    tries: dict[tuple[str, ...], int] = {}
    done: list[Change] = []

    def answer(batch: Batch) -> Outcome:
        assert list(batch.changes) == records[len(done) : len(done) + len(batch.changes)], "in order, none left out"
        assert len(batch.changes) <= size
        assert len(batch.changes) == 1 or sum(len(each.encoded) + 1 for each in batch.changes) + 13 <= 500
        kind, index = next(script, ("fine", 0))
        if kind == "not invoked":
            return NotInvoked("busy")
        tries[tuple(numbers(batch.changes))] = tries.get(tuple(numbers(batch.changes)), 0) + 1
        if poison & {int(number) for number in numbers(batch.changes)} or kind == "error":
            return ERROR
        return failing_at(index % len(batch.changes), batch) if kind == "partial" else FINE

    now_s = NOW_S
    while True:
        match lane.next(now_s):
            case Wait(None):
                break
            case Wait(until_s):
                assert until_s is not None
                now_s = until_s
            case Invoke(batch):
                done += lane.settle(answer(batch), now_s)
            case Discard(batch, condition):
                assert condition == "RetryAttemptsExhausted"
                done += lane.discarded()
    assert done == records
    assert len(lane) == 0
    assert max(tries.values()) <= retries_max + 1
