"""One invocation: what is reported as failed, what is measured and what is said."""

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_lambda import handler as bridge_module
from bridge_lambda.errors import NotOurEventError
from bridge_lambda.handler import NEAR_EXPIRY_MS, process
from bridge_lambda.publisher import RESERVE_MS
from tests.support.bridge_rig import SECRET, Rig, change, fresh_rig, oversized, poison
from tests.support.dynamodb_items import thoroughly
from tests.support.kinesis_fakes import Fault


@pytest.fixture
def rig() -> Iterator[Rig]:
    with fresh_rig() as made:
        yield made


@pytest.fixture
def lines() -> Iterator[list[logging.LogRecord]]:
    """What the bridge logs, at whatever level."""
    kept: list[logging.LogRecord] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            kept.append(record)

    keeper, logger = Keeper(), logging.getLogger("bridge")
    before = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(keeper)
    yield kept
    logger.removeHandler(keeper)
    logger.setLevel(before)


def measured(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    bridge_module.metrics.flush_metrics()
    blob: dict[str, Any] = json.loads(capsys.readouterr().out)
    return blob


# --- the answer -------------------------------------------------------------------------------------------------------


def test_a_batch_that_went_reports_nothing(rig: Rig) -> None:
    assert rig.invoke([change(1), change(2)]) == []
    assert rig.sent() == [1, 2]


def test_the_lowest_unsent_sequence_number_is_reported_and_only_that(rig: Rig) -> None:
    rig.kinesis.faults = iter([Fault(failing=frozenset({1})), *[Fault(error="500")] * 1000])
    assert rig.invoke([change(1), change(2), change(3)]) == ["2"]
    assert 1 in rig.sent()


def test_a_pipe_is_told_every_unsent_event_by_its_id(rig: Rig) -> None:
    rig.kinesis.faults = iter([Fault(failing=frozenset({1})), *[Fault(error="500")] * 1000])
    answer = process([change(1), change(2), change(3)], rig.bridge, rig.clock.remaining_ms)
    assert [failure["itemIdentifier"] for failure in answer["batchItemFailures"]] == ["event-2", "event-3"]


def test_a_batch_that_comes_with_no_time_left_is_reported_whole(rig: Rig, lines: list[Any]) -> None:
    rig.clock.budget_ms = RESERVE_MS - 1
    assert rig.invoke([change(1), change(2)]) == ["1"]
    assert not rig.kinesis.calls
    assert [line.what for line in lines] == ["no time left"]


def test_a_stream_that_is_gone_fails_the_batch_and_says_what_to_do(rig: Rig, lines: list[Any]) -> None:
    rig.kinesis.faults = iter([Fault(error="gone")])
    assert rig.invoke([change(1), change(2)]) == ["1"]
    assert [line.hint for line in lines] == ["create the stream"]


def test_what_the_filter_keeps_back_counts_as_done(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    assert rig.invoke([change(1, "us"), change(2), change(3, "us")]) == []
    assert rig.sent() == [2]
    assert measured(capsys)["records_skipped"] == [2]


# --- events of strangers ----------------------------------------------------------------------------------------------

STRANGERS: tuple[Any, ...] = (
    {},
    {"Records": []},
    {"Records": "x"},
    {"detail": {}},
    [],
    None,
    "text",
    {"Records": [{"eventSource": "aws:kinesis", "kinesis": {"data": SECRET}}]},
    {"Records": [{"EventSource": "aws:sns"}]},
    {"Records": [change(1), {"eventSource": "aws:sqs", "body": SECRET}]},
)


@pytest.mark.parametrize("event", STRANGERS, ids=lambda event: str(event)[:50])
def test_an_event_that_is_no_dynamodb_streams_is_refused_whole(rig: Rig, event: Any) -> None:
    with pytest.raises(NotOurEventError, match="may invoke this function") as caught:
        process(event, rig.bridge, rig.clock.remaining_ms)
    assert SECRET not in str(caught.value)
    assert not rig.kinesis.calls
    assert not rig.bucket.puts


# --- age --------------------------------------------------------------------------------------------------------------


def test_a_record_that_was_nearly_trimmed_marks_its_table_unproven_once(rig: Rig) -> None:
    """Others before it may have been trimmed: only `verify` can tell."""
    rig.clock.now = 1_789_999_990_000 + NEAR_EXPIRY_MS + 1.0
    assert rig.invoke([change(1)]) == []
    assert rig.invoke([change(2)]) == []
    (mark,) = rig.bucket.objects.values()
    assert mark.name.startswith("unproven/things/20260301123045678-near-expiry-")
    assert json.loads(mark.body)["table"] == "things"
    assert not mark.secret
    assert rig.bucket.puts == 1


def test_a_mark_that_cannot_be_left_holds_nothing_back_and_is_tried_again(rig: Rig) -> None:
    rig.clock.now = 1_789_999_990_000 + NEAR_EXPIRY_MS + 1.0
    rig.bucket.refuses = True
    assert rig.invoke([change(1)]) == []
    rig.bucket.refuses = False
    assert rig.invoke([change(2)]) == []
    assert len(rig.bucket.objects) == 1
    assert rig.sent() == [1, 2]


def test_a_record_of_ordinary_age_leaves_no_mark(rig: Rig) -> None:
    rig.clock.now = 1_789_999_990_000 + NEAR_EXPIRY_MS - 60_000.0
    rig.invoke([change(1)])
    assert not rig.bucket.objects


# --- what is measured and said ----------------------------------------------------------------------------------------


def test_every_count_of_an_invocation_is_a_metric_of_its_table(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    rig.kinesis.faults = iter([Fault(failing=frozenset({1}))])
    rig.invoke([change(1), change(2), poison(3), change(4, "us"), oversized(5)])
    blob = measured(capsys)
    assert blob["table"] == "things"
    assert blob["service"] == "bridge"
    assert {name: blob[name][0] for name in blob if name.startswith("records_")} == {
        "records_in": 5,
        "records_sent": 3,
        "records_resent": 2,
        "records_failed": 0,
        "records_skipped": 1,
        "records_dead_lettered": 1,
        "records_near_expiry": 0,
    }
    assert blob["claim_checks"] == [1]
    size_of = {json.loads(r.data)["seq"]: len(r.data) + len(r.key) for r in rig.kinesis.acknowledged()}
    assert blob["bytes_sent"][0] == sum(size_of.values())
    assert blob["iterator_age_ms"] == [10_000]
    assert blob["duration_ms"][0] >= 40
    assert blob["put_records_ms"] == [20, 20]
    assert blob["_aws"]["CloudWatchMetrics"][0]["Namespace"] == "lakestream"


def test_what_failed_is_counted(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    rig.kinesis.faults = iter([Fault(error="gone")])
    rig.invoke([change(1), change(2), change(3)])
    assert measured(capsys)["records_failed"] == [3]


def test_no_line_of_any_level_holds_item_data_and_every_one_says_what_to_do(rig: Rig, lines: list[Any]) -> None:
    """Keys are item data too."""
    rig.kinesis.poison = frozenset({json.dumps({"id": f"{SECRET}-0"}, separators=(",", ":"))})
    rig.clock.now = 1_789_999_990_000 + NEAR_EXPIRY_MS + 1.0
    rig.invoke([change(0), poison(1), change(2, text={"S": "\ud800"}), {"eventSource": "aws:dynamodb", "x": SECRET}])
    rig.kinesis.faults = iter([Fault(error="500")] * 1000)
    rig.invoke([change(1), change(2)])
    rig.bucket.refuses = True
    rig.clock.budget_ms = 60_000
    rig.invoke([poison(3)])
    assert {line.getMessage() for line in lines} == {
        "records were nearly trimmed",
        "dead letter",
        "not all was sent",
        "the batch is cut short",
    }
    assert all(line.hint for line in lines)
    assert not any(SECRET in str(vars(line)) for line in lines)


# --- all at once ------------------------------------------------------------------------------------------------------

KINDS: dict[str, Callable[[int], dict[str, Any]]] = {
    "good": change,
    "kept back": lambda number: change(number, "us"),
    "poison": poison,
}
troubles = st.one_of(
    st.builds(Fault, failing=st.frozensets(st.integers(0, 8), max_size=6), backwards=st.booleans()),
    st.builds(Fault, error=st.sampled_from(["throttled", "timed out", "500", "gone"]), lands=st.booleans()),
)


@given(
    kinds=st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=9),
    faults=st.lists(troubles, max_size=8),
    outages=st.lists(st.booleans(), max_size=4),
    budgets=st.lists(st.integers(-100, 2000), max_size=4),
)
@thoroughly(2)
def test_every_record_of_a_batch_ends_in_the_stream_or_in_a_dead_letter_or_is_kept_back_by_the_filter(
    kinds: list[str], faults: list[Fault], outages: list[bool], budgets: list[int]
) -> None:
    """With faults of Kinesis, outages of S3 and invocations short of time; the mapping comes back as it is told."""
    rig = Rig()
    rig.kinesis.faults = iter(faults)
    records = [KINDS[kind](number) for number, kind in enumerate(kinds, start=1)]
    down, budget = iter(outages), iter(budgets)
    pending = records
    for _ in range(len(faults) + len(outages) + len(budgets) + 2):
        rig.bucket.refuses = next(down, False)
        rig.clock.budget_ms = RESERVE_MS + next(budget, 60_000)
        reported = rig.invoke(pending)
        if not reported:
            break
        pending = [record for record in records if int(record["dynamodb"]["SequenceNumber"]) >= int(reported[0])]
    assert not reported
    of_kind = {kind: {n for n, k in enumerate(kinds, start=1) if k == kind} for kind in KINDS}
    assert set(rig.sent()) == of_kind["good"]
    parked = {int(letter["record"]["dynamodb"]["SequenceNumber"]) for letter in rig.bucket.letters()}
    assert parked == of_kind["poison"]
    in_stream = sorted(rig.kinesis.acknowledged(), key=lambda landed: landed.sequence)
    last = {landed.key: int(json.loads(landed.data)["seq"]) for landed in in_stream}
    newest = {number % 3: number for number in sorted(of_kind["good"])}
    assert sorted(last.values()) == sorted(newest.values())
    bridge_module.metrics.clear_metrics()
