"""The series behind the charts: what a step keeps, and how much they hold after a day."""

import math

import pytest

from streaming_job.latency.dashboard.series import RESOLUTIONS, SHOWN, History
from streaming_job.latency.hops import CHAIN

NOON_S = 1_795_262_400


def row(**values: float | None) -> dict[str, float | None]:
    return dict(values)


def test_a_simulated_day_of_seconds_leaves_memory_as_it_was() -> None:
    history = History()
    history.add(NOON_S, row(p50_ms=1.0, in_count=1.0, in_s=1.0))
    before = history.held_bytes
    for second in range(1, 86_400, 7):
        history.add(NOON_S + second, row(p50_ms=float(second), in_count=3.0, in_s=1.0))
    assert history.held_bytes == before < 1024 * 1024


def test_after_a_day_each_range_has_its_points_and_no_more() -> None:
    history = History()
    for second in range(0, 86_400, 1):
        if second % 60 < 2 or second > 86_000:  # enough seconds to touch every step of every resolution
            history.add(NOON_S + second, row(p99_ms=5.0))
    for tier, resolution in zip(history.tiers, RESOLUTIONS, strict=True):
        shown = tier.shown(NOON_S + 86_399)
        assert len(shown["at_s"]) <= resolution.points  # type: ignore[arg-type]
        assert {len(column) for column in shown["columns"].values()} == {len(shown["at_s"])}  # type: ignore[attr-defined, arg-type]
    assert len(history.tiers[-1].shown(NOON_S + 86_399)["at_s"]) == RESOLUTIONS[-1].points  # type: ignore[arg-type]


def test_a_longer_step_keeps_the_peak_and_divides_rates_by_the_time_seen() -> None:
    history = History()
    for second, (p95, changes) in enumerate([(800.0, 10.0), (19_000.0, 0.0), (700.0, 50.0)]):
        history.add(NOON_S + second, row(p95_ms=p95, out_count=changes, out_s=1.0))
    columns = history.tiers[2].shown(NOON_S + 2)["columns"]
    assert isinstance(columns, dict)
    assert columns["p95_ms"] == [19_000.0]
    assert columns["out_per_s"] == [20.0]


def test_a_hops_mean_weighs_each_change_once() -> None:
    history = History()
    hop = CHAIN[3]
    history.add(NOON_S, {f"{hop}_sum_ms": 100.0, f"{hop}_count": 1.0})
    history.add(NOON_S + 1, {f"{hop}_sum_ms": 900.0, f"{hop}_count": 99.0})
    columns = history.tiers[1].shown(NOON_S + 1)["columns"]
    assert isinstance(columns, dict)
    assert columns[f"{hop}_ms"] == [10.0]


def test_seconds_in_which_nothing_was_known_are_shown_as_unknown_not_as_zero() -> None:
    history = History()
    history.add(NOON_S, row(p50_ms=1.0))
    history.add(NOON_S + 10, row(p50_ms=2.0))
    shown = history.tiers[0].shown(NOON_S + 10)
    columns = shown["columns"]
    assert isinstance(columns, dict)
    assert set(columns) == set(SHOWN)
    assert columns["p50_ms"] == [1.0, *[None] * 9, 2.0]
    assert all(value is None for value in columns["in_per_s"])


@pytest.mark.parametrize("odd", [math.nan, math.inf])
def test_a_figure_that_is_no_number_is_shown_as_unknown(odd: float) -> None:
    history = History()
    history.add(NOON_S, row(p50_ms=odd))
    columns = history.tiers[0].shown(NOON_S)["columns"]
    assert isinstance(columns, dict)
    assert columns["p50_ms"] == [None]
