"""What a rate needs: no part is planned past its limit, freshness follows from them, and ARCHITECTURE says so."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from config.limits import (
    DYNAMODB_PARTITION_WRITE_UNITS_S_MAX,
    KINESIS_SHARD_WRITE_BYTES_S_MAX,
    KINESIS_SHARD_WRITE_RECORDS_S_MAX,
    MAPPING_PARALLELIZATION_MAX,
)
from streaming_job.cli import app
from streaming_job.operations.cost_forecast import Load, Way, forecast, record_ms, write_units
from streaming_job.operations.cost_prices import load_prices
from streaming_job.operations.measured import ITEM_BYTES, JOB_CORE_MS, JOB_SERIAL_MS
from streaming_job.operations.scale import LIMIT_HEADINGS, PLAN_HEADINGS, limit_cells, plan_cells
from streaming_job.operations.scale_plan import BUSY_MAX, Place, limits, plan
from streaming_job.operations.scale_simulation import POLL_MS, Flow, batch_every_ms, simulate
from tests.support.dynamodb_items import thoroughly

ARCHITECTURE = (Path(__file__).parents[2] / "ARCHITECTURE.md").read_text(encoding="utf-8")
RATES = (1_000, 10_000, 100_000)
PLACES: tuple[Place, ...] = ("AWS", "Databricks")
PRICES = load_prices()
FLOW = Flow(changes_s=100, lanes=10, invocation_ms=20, record_ms=1.5, batch_ms=200, change_ms=0.5, batch_spread=0.34)


def load(changes_s: float, item_bytes: int = ITEM_BYTES) -> Load:
    return Load(changes_s=changes_s, item_bytes=item_bytes)


# --- freshness, simulated ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes_s", [1, 100, 1_000, 1_600])
@pytest.mark.parametrize("batch_ms", [250.0, 2_000.0])
def test_batches_follow_each_other_as_the_formula_says(changes_s: float, batch_ms: float) -> None:
    """A batch's own time, over the share of it that its changes leave; chance evens out within a twentieth."""
    flow = replace(FLOW, changes_s=changes_s, batch_ms=batch_ms)
    found = simulate(flow, seconds=3_600)
    assert found.batch_every_ms == pytest.approx(batch_every_ms(flow), rel=0.05)


def test_a_quiet_flows_median_is_half_of_each_wait_and_all_of_each_work() -> None:
    """Half a poll, an invocation, half the way to the next batch, that batch. No batch is shorter or longer."""
    flow = replace(FLOW, changes_s=1, batch_ms=400.0, batch_spread=0.0)
    assert simulate(flow).p50_ms == pytest.approx(POLL_MS / 2 + 20 + 200 + 400, rel=0.05)


@pytest.mark.parametrize(
    "slower", [{"batch_ms": 400.0}, {"change_ms": 2.0}, {"invocation_ms": 200.0}, {"changes_s": 1_500}]
)
def test_what_takes_longer_makes_no_change_fresher(slower: dict[str, Any]) -> None:
    assert simulate(replace(FLOW, **slower)).p50_ms > simulate(FLOW).p50_ms


@pytest.mark.parametrize("beyond", [{"changes_s": 2_100}, {"record_ms": 110.0}])
def test_what_is_more_than_can_be_worked_off_has_no_freshness(beyond: dict[str, Any]) -> None:
    """In the job, or in the bridge."""
    with pytest.raises(ValueError, match="worked off"):
        simulate(replace(FLOW, **beyond))


def test_one_seed_is_one_answer() -> None:
    assert simulate(FLOW, seed=7) == simulate(FLOW, seed=7) != simulate(FLOW, seed=8)


# --- the plan ---------------------------------------------------------------------------------------------------------


@given(st.floats(1, 500_000), st.integers(1, 400_000), st.sampled_from(PLACES))
@thoroughly()
def test_no_part_is_planned_past_its_limit(changes_s: float, item_bytes: int, place: Place) -> None:
    asked = load(changes_s, item_bytes)
    found = plan(asked, place, PRICES)
    each_s = changes_s / found.stacks
    slack = 1 + 1e-9
    assert each_s <= found.stream_shards * KINESIS_SHARD_WRITE_RECORDS_S_MAX * BUSY_MAX * slack
    assert each_s * asked.record_bytes <= found.stream_shards * KINESIS_SHARD_WRITE_BYTES_S_MAX * BUSY_MAX * slack
    assert each_s * write_units(asked) <= found.table_shards * DYNAMODB_PARTITION_WRITE_UNITS_S_MAX * slack
    assert each_s / found.table_shards * record_ms(Way().memory_mb) / 1000 <= found.parallelization * BUSY_MAX * slack
    assert found.parallelization <= MAPPING_PARALLELIZATION_MAX
    assert each_s * JOB_CORE_MS / 1000 <= found.cores * BUSY_MAX * slack
    assert each_s * JOB_SERIAL_MS / 1000 <= BUSY_MAX * slack


@pytest.mark.parametrize("place", PLACES)
def test_more_changes_never_need_or_cost_less(place: Place) -> None:
    plans = [plan(load(rate), place, PRICES) for rate in (1, 10, 100, 1_000, 3_000, 4_000, 10_000, 100_000)]
    for less, more in pairwise(plans):
        assert less.stacks <= more.stacks
        assert less.stacks * less.stream_shards <= more.stacks * more.stream_shards
        assert less.stacks * less.nodes <= more.stacks * more.nodes
        assert less.usd_month < more.usd_month


@pytest.mark.parametrize("changes_s", [1, 1_000, 3_000])
def test_what_a_plan_costs_is_reckoned_with_the_shards_it_plans(changes_s: float) -> None:
    found = plan(load(changes_s), "AWS", PRICES)
    asked = replace(load(changes_s / found.stacks), table_shards=found.table_shards)
    way = Way(
        databricks=False,
        shards=found.stream_shards,
        mode=found.mode,
        nodes=found.nodes,
        commits_min=60_000 / found.freshness.batch_every_ms,
    )
    assert found.usd_month == pytest.approx(found.stacks * sum(line.usd for line in forecast(asked, way, PRICES)))


def test_limits_come_in_the_order_in_which_they_are_met() -> None:
    found = limits(load(1))
    assert [limit.changes_s for limit in found] == sorted(limit.changes_s for limit in found)
    smaller = {limit.what: limit.changes_s for limit in limits(load(1, ITEM_BYTES // 2))}
    assert all(smaller[limit.what] >= limit.changes_s for limit in found), "smaller items reach none sooner"


# --- what is said of it -----------------------------------------------------------------------------------------------


def markdown(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |\n"


def test_architecture_has_the_plans_and_limits_that_the_command_prints() -> None:
    plans = [plan(load(rate), place, PRICES) for rate in RATES for place in PLACES]
    expected = [PLAN_HEADINGS, *map(plan_cells, plans), LIMIT_HEADINGS, *map(limit_cells, limits(load(1)))]
    missing = "".join(line for line in map(markdown, expected) if line not in ARCHITECTURE)
    assert missing == "", f"to be put into ARCHITECTURE.md:\n{missing}"
    assert f"lakestream scale {' '.join(map(str, RATES))}" in ARCHITECTURE


def test_the_command_prints_a_plan_for_each_rate_and_place() -> None:
    answer = json.loads(CliRunner().invoke(app, ["scale", "10", "5000", "--json"]).stdout)
    assert [(each["changes_s"], each["place"]) for each in answer["plans"]] == [
        (rate, place) for rate in (10, 5_000) for place in PLACES
    ]
    assert answer["limits"]
    shown = CliRunner().invoke(app, ["scale", "10"]).stdout
    assert all(cell in shown for cell in plan_cells(plan(load(10), "AWS", PRICES)))


@pytest.mark.parametrize("wrong", [["0"], ["nan"], ["inf"], ["10", "--item-bytes", "409601"], []])
def test_a_load_that_cannot_be_is_wrong_usage(wrong: list[str]) -> None:
    assert CliRunner().invoke(app, ["scale", *wrong]).exit_code == 2
