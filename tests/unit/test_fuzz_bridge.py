"""Whatever an event holds, the bridge answers for it or refuses it whole; it never fails in a way nobody handles."""

import copy
import json
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge_lambda import handler
from bridge_lambda.errors import BridgeError
from bridge_lambda.handler import Bridge, process
from bridge_lambda.rules import HashKey, table_rules
from tests.support.bridge_rig import ARN, FullBucket
from tests.support.dynamodb_items import thoroughly
from tests.support.kinesis_fakes import FaultyKinesis, ManualClock

RULES: dict[str, Any] = {
    "version": 1,
    "key": ["id"],
    "drop": [["private"], ["deep", "private"]],
    "hash": [["email"], ["list", "email"]],
    "secret": {"name": "s", "version": None},
    "keep_old_image": True,
    "filter": {"path": ["deep", "region"], "equals": [["S", "eu"], ["N", "1"]]},
    "origin": {"path": ["at"], "ms_per_unit": 1000},
}
IMAGE: dict[str, Any] = {
    "id": {"S": "a"},
    "at": {"N": "1789999990"},
    "email": {"S": "x@y"},
    "deep": {"M": {"region": {"S": "eu"}, "private": {"NULL": True}}},
    "list": {"L": [{"M": {"email": {"N": "1.50"}}}, {"BS": ["AA=="]}]},
}
RECORD: dict[str, Any] = {
    "eventID": "e",
    "eventName": "MODIFY",
    "eventSource": "aws:dynamodb",
    "eventSourceARN": ARN,
    "userIdentity": {"type": "Service", "principalId": "dynamodb.amazonaws.com"},
    "dynamodb": {
        "ApproximateCreationDateTime": 1_789_999_990,
        "Keys": {"id": {"S": "a"}},
        "NewImage": IMAGE,
        "OldImage": IMAGE,
        "SequenceNumber": "100000000000000000000001",
    },
}
odd_texts = ("\ud800", "1e999999", "9" * 5000, "-0", "NaN", "aws:dynamodb", ARN, ARN + "/x", "S", "REMOVE")
types = ("S", "N", "B", "M", "L", "SS", "NS", "BS", "BOOL", "NULL", "id", "X")
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4), st.sampled_from(odd_texts)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(types), inner, max_size=2)),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in parts:
        yield from places(part, (*path, name))


PLACES = sorted(places(RECORD), key=str)


@st.composite
def damaged(draw: st.DrawFn) -> dict[str, Any]:
    """A record with some of its parts gone or replaced by anything."""
    record = copy.deepcopy(RECORD)
    for path in draw(st.lists(st.sampled_from(PLACES), min_size=1, max_size=3)):
        parent: Any = record
        try:
            for step in path[:-1]:
                parent = parent[step]
            if draw(st.booleans()):
                del parent[path[-1]]
            else:
                parent[path[-1]] = draw(json_values)
        except (LookupError, TypeError):
            continue  # an earlier damage took the place away
    return record


def with_image(**attributes: Any) -> dict[str, Any]:
    return {**RECORD, "dynamodb": {**RECORD["dynamodb"], "NewImage": {**IMAGE, **attributes}}}


class Rig:
    def __init__(self) -> None:
        clock = ManualClock()
        self.clock, self.kinesis, self.bucket = clock, FaultyKinesis(clock), FullBucket()
        tables = {"things": table_rules("things", RULES, lambda *_: HashKey("k", b"0" * 32))}
        self.bridge = Bridge(tables, self.kinesis, self.bucket, "bucket", clock)

    def invoke(self, event: Any) -> list[str]:
        try:
            answer = process(event, self.bridge, self.clock.remaining_ms)
        finally:
            handler.metrics.clear_metrics()
        return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]


@thoroughly(5)
@given(st.lists(damaged() | json_values, max_size=4))
@example([{**RECORD, "dynamodb": {**RECORD["dynamodb"], "ApproximateCreationDateTime": float("nan")}}])
@example([{**RECORD, "dynamodb": {**RECORD["dynamodb"], "ApproximateCreationDateTime": 1e300}}])
@example([{**RECORD, "eventSourceARN": ["aws"]}])
@example([with_image(at={"N": "9" * 5000})])
def test_every_record_of_any_event_is_sent_or_parked_or_kept_back(records: list[Any]) -> None:
    rig = Rig()
    records = [RECORD, *records]
    try:
        failed = rig.invoke({"Records": records})
    except BridgeError:
        return  # the event is not a table's: refused whole, and nothing of it is done
    assert failed == []
    kept_back = len(records) - len(rig.kinesis.acknowledged()) - len(rig.bucket.letters())
    assert len(rig.kinesis.acknowledged()) >= 1
    assert 0 <= kept_back <= sum(filtered_out(record) for record in records) + duplicates(records)


def filtered_out(record: Any) -> bool:
    """May be outside the filter: its region is not what it was."""
    return not isinstance(record, dict) or record.get("dynamodb") != RECORD["dynamodb"]


def duplicates(records: list[Any]) -> int:
    """Equal letters have one name."""
    texts = [json.dumps(record, default=str, sort_keys=True) for record in records]
    return len(texts) - len(set(texts))


@thoroughly(2)
@given(json_values)
@example({"Records": [None]})
@example({"Records": {"0": RECORD}})
@example([[]])
def test_what_is_no_event_is_refused_or_parked_and_never_fails_otherwise(event: Any) -> None:
    with suppress(BridgeError):
        Rig().invoke(event)


@pytest.mark.parametrize("levels", [32, 33, 100, 300])
def test_an_image_nested_deeper_than_dynamodb_nests_is_sent_or_parked(levels: int) -> None:
    nested: dict[str, Any] = {"S": "x"}
    for _ in range(levels):
        nested = {"L": [nested]}
    rig = Rig()
    assert (
        rig.invoke({"Records": [{**RECORD, "dynamodb": {**RECORD["dynamodb"], "NewImage": {**IMAGE, "v": nested}}}]})
        == []
    )
    assert len(rig.kinesis.acknowledged()) + len(rig.bucket.letters()) == 1


def test_what_an_invocation_takes_is_bounded_by_its_event() -> None:
    """6 MB is the most that Lambda hands over; shapes that blow up careless encoders."""
    for image in (
        {f"n{at}": {"N": str(at)} for at in range(20_000)},
        {"v": {"S": "\u0001" * 400_000}},
        {"v": {"NS": [f"{at}.50" for at in range(20_000)]}},
        {"v": {"L": [{"M": {"email": {"S": "x"}, "private": {"S": "y"}}}] * 20_000}},
    ):
        event = {"Records": [with_image(**image)]}
        size = len(json.dumps(event))
        rig = Rig()
        tracemalloc.start()
        assert rig.invoke(event) == []
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 60 * size, peak / size
