"""As few PutRecords calls as there can be, none beyond a limit, in stream order."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_lambda.packing import fitting
from config.limits import KINESIS_PUT_BYTES_MAX, KINESIS_PUT_RECORDS_MAX, KINESIS_RECORD_BYTES_MAX
from tests.support.dynamodb_items import thoroughly


@dataclass(frozen=True)
class Weight:
    cost: int


def calls_of(costs: list[int], records_max: int, bytes_max: int) -> list[list[int]]:
    pending = [Weight(cost) for cost in costs]
    calls = []
    while pending:
        count = fitting(pending, records_max, bytes_max)
        calls.append([weight.cost for weight in pending[:count]])
        pending = pending[count:]
    return calls


def fewest(costs: list[int], records_max: int, bytes_max: int) -> int:
    """By trying every way to cut: the model."""
    best = [0] + [len(costs) + 1] * len(costs)
    for end in range(1, len(costs) + 1):
        for start in range(end):
            part = costs[start:end]
            if len(part) == 1 or (len(part) <= records_max and sum(part) <= bytes_max):
                best[end] = min(best[end], best[start] + 1)
    return best[-1]


@given(st.lists(st.integers(1, 12), max_size=40), st.integers(1, 6), st.integers(12, 40))
@thoroughly(2)
def test_no_division_in_order_makes_fewer_calls(costs: list[int], records_max: int, bytes_max: int) -> None:
    calls = calls_of(costs, records_max, bytes_max)
    assert [cost for call in calls for cost in call] == costs
    assert all(len(call) <= records_max and sum(call) <= bytes_max for call in calls)
    assert len(calls) == fewest(costs, records_max, bytes_max)


MIB = 1024 * 1024
EDGES = (
    ([1] * KINESIS_PUT_RECORDS_MAX, 500),
    ([1] * (KINESIS_PUT_RECORDS_MAX + 1), 500),
    ([KINESIS_RECORD_BYTES_MAX] * 10, 10),
    ([KINESIS_RECORD_BYTES_MAX] * 11, 10),
    ([KINESIS_RECORD_BYTES_MAX] * 9 + [MIB - 1, 1], 11),
    ([KINESIS_RECORD_BYTES_MAX] * 9 + [MIB - 1, 2], 10),
    ([KINESIS_PUT_BYTES_MAX // 500] * 500, 500),
    ([KINESIS_PUT_BYTES_MAX // 500 + 1] * 500, 499),
    ([KINESIS_PUT_BYTES_MAX + 1, 1], 1),
    ([], 0),
)


@pytest.mark.parametrize(("costs", "count"), EDGES, ids=range(len(EDGES)))
def test_a_call_is_filled_up_to_each_limit_and_not_beyond(costs: list[int], count: int) -> None:
    assert fitting([Weight(cost) for cost in costs]) == count
