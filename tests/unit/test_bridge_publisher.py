"""Order and loss: whatever Kinesis does, nothing is lost and a key's newest record is its last."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ParamValidationError,
    ReadTimeoutError,
)
from hypothesis import given
from hypothesis import strategies as st

from bridge_lambda.errors import BridgeError, CallInvalidError, ParkError, PublishError, StreamGoneError, TryAgainError
from bridge_lambda.publisher import (
    BACKOFF_S_MAX,
    RESERVE_MS,
    Entry,
    KinesisPublisher,
    Published,
    publish,
    to_send_again,
)
from tests.support.dynamodb_items import thoroughly
from tests.support.kinesis_fakes import ERRORS, Fault, FaultyKinesis, ManualClock


@dataclass(frozen=True)
class Numbered:
    """A change that says only its key and its number."""

    partition_key: str
    number: int
    cost: int = 100

    def line(self, bridge_out_ms: int) -> bytes:
        return b"%d@%d\n" % (self.number, bridge_out_ms)


def entries(keys: list[str], cost: int = 100) -> list[Entry]:
    return [Entry(index, Numbered(key, index, cost)) for index, key in enumerate(keys)]


def number_of(data: bytes) -> int:
    return int(data.split(b"@")[0])


def send(pending: list[Entry], kinesis: FaultyKinesis, condemned: list[int] | None = None) -> Published:
    def condemn(entry: Entry, error: BridgeError) -> None:
        assert condemned is not None, error
        condemned.append(entry.index)

    clock = kinesis.clock
    return publish(pending, kinesis, clock=clock, remaining_ms=clock.remaining_ms, condemn=condemn, jitter=lambda: 0.5)


faults = st.one_of(
    st.builds(
        Fault,
        failing=st.frozensets(st.integers(0, 12), max_size=8),
        backwards=st.booleans(),
    ),
    st.builds(Fault, error=st.sampled_from(["throttled", "timed out", "500", "gone"]), lands=st.booleans()),
)


@given(
    keys=st.lists(st.sampled_from("abcdp"), min_size=1, max_size=13),
    troubles=st.lists(faults, max_size=12),
    budgets=st.lists(st.integers(0, 3000), max_size=6),
    poison=st.sampled_from([frozenset(), frozenset("p")]),
)
@thoroughly(3)
def test_nothing_is_lost_and_a_keys_newest_record_is_the_last_acknowledged(
    keys: list[str], troubles: list[Fault], budgets: list[int], poison: frozenset[str]
) -> None:
    """Any subset fails in any call, calls time out after they were carried out, invocations run out of time.

    As the mapping does, the batch is sent again from the record that the bridge named, until nothing is unsent.
    """
    clock = ManualClock()
    kinesis = FaultyKinesis(clock, iter(troubles), poison)
    condemned: list[int] = []
    pending = entries(keys)
    rounds: Iterator[int] = iter(budgets)
    for _ in range(len(troubles) + len(budgets) + 2):
        clock.budget_ms = RESERVE_MS + next(rounds, 60_000)
        done = send(pending, kinesis, condemned)
        if done.unsent is None:
            break
        assert done.problem is not None
        pending = [entry for entry in pending if entry.index >= done.unsent]
    assert done.unsent is None
    assert {index for index, key in enumerate(keys) if key in poison} == set(condemned)
    acknowledged = kinesis.acknowledged()
    assert {number_of(landed.data) for landed in acknowledged} == set(range(len(keys))) - set(condemned)
    newest = {key: index for index, key in enumerate(keys) if key not in poison}
    last = {landed.key: number_of(landed.data) for landed in sorted(acknowledged, key=lambda landed: landed.sequence)}
    assert last == newest


@given(
    keys=st.lists(st.sampled_from("abcd"), min_size=1, max_size=13),
    troubles=st.lists(faults, max_size=12),
    budget_ms=st.integers(0, 2000),
)
@thoroughly(3)
def test_nothing_before_the_record_that_is_named_unsent_is_missing(
    keys: list[str], troubles: list[Fault], budget_ms: int
) -> None:
    """The mapping will never come back to it."""
    clock = ManualClock(budget_ms=RESERVE_MS + budget_ms)
    kinesis = FaultyKinesis(clock, iter(troubles))
    done = send(entries(keys), kinesis)
    acknowledged = {number_of(landed.data) for landed in kinesis.acknowledged()}
    assert set(range(done.unsent if done.unsent is not None else len(keys))) <= acknowledged
    assert done.sent <= len(acknowledged) + done.resent


# --- what goes again --------------------------------------------------------------------------------------------------

AGAIN = (
    ("aab", ["1", "2", "3"], []),
    ("aab", [None, "2", "3"], [0, 1]),
    ("aab", ["1", None, "3"], [1]),
    ("aaa", ["1", None, "3"], [1, 2]),
    ("aba", ["1", None, "3"], [1]),
    ("abab", [None, "2", "3", "4"], [0, 2]),
    ("aab", ["2", "1", "3"], [1]),
    ("aaa", ["3", "1", "2"], [2]),
    ("aaa", ["1", "3", "2"], [2]),
    ("aaa", ["2", "1", None], [2]),
    ("ab", ["9", "10"], []),
    ("aa", ["9", "10"], []),
)


@pytest.mark.parametrize(("keys", "outcomes", "again"), AGAIN)
def test_with_a_failed_record_go_all_later_ones_of_its_key_and_no_others(
    keys: str, outcomes: list[str | None], again: list[int]
) -> None:
    """Where Kinesis ordered a key's records otherwise, its newest goes again and so comes to lie last."""
    assert [entry.index for entry in to_send_again(entries(list(keys)), outcomes)] == again


def test_what_goes_again_goes_before_anything_later() -> None:
    """And fills up the next call: nothing is sent on its own that could go with others."""
    kinesis = FaultyKinesis(ManualClock(), iter([Fault(failing=frozenset({0, 499}))]))
    send(entries([str(index) for index in range(1000)]), kinesis)
    assert [len(call) for call in kinesis.calls] == [500, 500, 2]
    assert [number_of(data) for data, _ in kinesis.calls[1][:3]] == [0, 499, 500]


def test_every_sending_is_stamped_with_its_own_time() -> None:
    kinesis = FaultyKinesis(ManualClock(), iter([Fault(error="throttled")]), call_ms=1000)
    send(entries(["a"]), kinesis)
    first, second = (int(call[0][0].split(b"@")[1]) for call in kinesis.calls)
    assert second >= first + 1000


# --- invalid calls ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 1, 249, 250, 498, 499])
def test_a_call_refused_as_invalid_is_split_until_the_culprit_is_alone(at: int) -> None:
    """The others lose no time worth speaking of: the culprit is found by halving."""
    keys = [f"k{index}" for index in range(500)]
    keys[at] = "bad"
    kinesis = FaultyKinesis(ManualClock(), poison=frozenset({"bad"}))
    condemned: list[int] = []
    done = send(entries(keys), kinesis, condemned)
    assert condemned == [at]
    assert done.unsent is None
    assert done.sent == 499
    assert len(kinesis.calls) <= 20


def test_several_culprits_are_each_found_and_the_rest_is_sent_in_order() -> None:
    keys = [f"k{index}" if index % 100 else "bad" for index in range(1000)]
    kinesis = FaultyKinesis(ManualClock(budget_ms=600_000), poison=frozenset({"bad"}))
    condemned: list[int] = []
    done = send(entries(keys), kinesis, condemned)
    assert condemned == list(range(0, 1000, 100))
    assert done.sent == 990
    numbers = [number_of(landed.data) for landed in kinesis.acknowledged()]
    assert numbers == sorted(numbers)


def test_a_culprit_that_cannot_be_parked_is_reported_unsent() -> None:
    def no_room(entry: Entry, error: BridgeError) -> None:
        raise ParkError("S3 did not take it", hint="mend S3 access")

    clock = ManualClock()
    kinesis = FaultyKinesis(clock, poison=frozenset({"bad"}))
    done = publish(entries(["a", "bad", "b"]), kinesis, clock=clock, remaining_ms=clock.remaining_ms, condemn=no_room)
    assert done.unsent == 1
    assert isinstance(done.problem, ParkError)


# --- time -------------------------------------------------------------------------------------------------------------


def test_no_call_starts_that_could_not_be_waited_for() -> None:
    kinesis = FaultyKinesis(ManualClock(budget_ms=RESERVE_MS - 1))
    done = send(entries(["a", "b"]), kinesis)
    assert not kinesis.calls
    assert done.unsent == 0
    assert done.problem is not None


def test_back_off_grows_with_each_failure_is_bounded_and_never_outlasts_the_invocation() -> None:
    clock = ManualClock(budget_ms=30_000)
    kinesis = FaultyKinesis(clock, iter([Fault(error="throttled")] * 1000))
    done = send(entries(["a"]), kinesis)
    assert done.unsent == 0
    assert clock.budget_ms > 0
    growing = clock.slept_ms[:6]
    assert growing == sorted(growing)
    assert len(set(growing)) > 3
    assert max(clock.slept_ms) <= BACKOFF_S_MAX * 1000
    assert sum(clock.slept_ms) > sum(growing)


def test_a_stream_that_is_gone_ends_the_sending_at_once() -> None:
    kinesis = FaultyKinesis(ManualClock(), iter([Fault(error="gone")]))
    done = send(entries(["a", "b"]), kinesis)
    assert len(kinesis.calls) == 1
    assert done.unsent == 0
    assert isinstance(done.problem, StreamGoneError)


def test_what_was_sent_resent_and_how_many_bytes_is_counted() -> None:
    kinesis = FaultyKinesis(ManualClock(), iter([Fault(failing=frozenset({1})), Fault(error="500")]))
    done = send(entries(["a", "b", "c"], cost=10), kinesis)
    assert (done.sent, done.resent, done.bytes) == (3, 2, 30)
    assert done.put_ms == [20.0, 20.0, 20.0]


# --- the client's answers ---------------------------------------------------------------------------------------------


class AnsweringClient:
    """boto3's client, as far as the publisher uses it."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def put_records(self, **_: Any) -> Any:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


def refused(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "item data"}}, "PutRecords")


ANSWERS: tuple[tuple[Exception, type[PublishError]], ...] = (
    (refused("ProvisionedThroughputExceededException"), TryAgainError),
    (refused("ThrottlingException"), TryAgainError),
    (refused("KMSThrottlingException"), TryAgainError),
    (refused("InternalFailure"), TryAgainError),
    (refused("500"), TryAgainError),
    (refused("ServiceUnavailable"), TryAgainError),
    (ReadTimeoutError(endpoint_url="http://kinesis"), TryAgainError),
    (ConnectTimeoutError(endpoint_url="http://kinesis"), TryAgainError),
    (EndpointConnectionError(endpoint_url="http://kinesis"), TryAgainError),
    (refused("InvalidArgumentException"), CallInvalidError),
    (refused("ValidationException"), CallInvalidError),
    (refused("SerializationException"), CallInvalidError),
    (ParamValidationError(report="item data"), CallInvalidError),
    (refused("ResourceNotFoundException"), StreamGoneError),
    (refused("AccessDeniedException"), StreamGoneError),
    (refused("KMSAccessDeniedException"), StreamGoneError),
    (NoCredentialsError(), StreamGoneError),
)


@pytest.mark.parametrize(("error", "kind"), ANSWERS, ids=lambda value: getattr(value, "__name__", str(value)[:60]))
def test_every_refusal_of_kinesis_is_retried_split_or_final_and_repeats_no_item_data(
    error: Exception, kind: type[PublishError]
) -> None:
    client: Any = AnsweringClient(error)
    with pytest.raises(PublishError) as caught:
        KinesisPublisher(client, "changes").put([(b"x", "k")])
    assert type(caught.value) is kind
    assert "item data" not in str(caught.value)
    assert caught.value.hint


def test_a_record_with_an_error_code_counts_as_failed() -> None:
    client: Any = AnsweringClient(
        {
            "FailedRecordCount": 1,
            "Records": [
                {"SequenceNumber": "49", "ShardId": "shardId-000000000000"},
                {"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "Rate exceeded"},
            ],
        }
    )
    assert KinesisPublisher(client, "changes").put([(b"x", "k"), (b"y", "l")]) == ["49", None]


def test_the_fakes_know_every_way_a_call_can_end() -> None:
    assert {type(make()) for make in ERRORS.values()} == {TryAgainError, StreamGoneError}
