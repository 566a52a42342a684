import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_job.latency.hops import CHAIN, WHOLE, measure
from streaming_job.latency.sketches import QUANTILES, RELATIVE_ACCURACY, HopSketch

durations = st.lists(st.integers(-5_000, 10_000_000), min_size=1, max_size=300)


def sketch_of(values: list[int]) -> HopSketch:
    sketch = HopSketch()
    sketch.add(np.array(values, dtype=np.float64))
    return sketch


def assert_within_error(sketch: HopSketch, values: list[int]) -> None:
    for quantile in QUANTILES:
        exact = float(np.quantile(values, quantile, method="lower"))
        near = sketch.quantile_ms(quantile)
        assert near is not None
        assert abs(near - exact) <= RELATIVE_ACCURACY * abs(exact) + 1e-9


@given(st.lists(durations, min_size=1, max_size=6))
def test_merged_minutes_give_the_percentiles_of_the_raw_data_within_the_sketchs_error(minutes: list[list[int]]) -> None:
    merged = HopSketch()
    for minute in minutes:
        merged.merge(sketch_of(minute))
    raw = sorted(value for minute in minutes for value in minute)
    assert_within_error(merged, raw)
    assert merged.count == len(raw)
    assert merged.negative == sum(value < 0 for value in raw)


@given(durations)
def test_bins_rebuild_the_same_percentiles_and_keep_the_exact_figures(values: list[int]) -> None:
    sketch = sketch_of(values)
    rebuilt = HopSketch.of_bins(
        sketch.bins(), negative=sketch.negative, sum_ms=sketch.sum_ms, min_ms=sketch.min_ms, max_ms=sketch.max_ms
    )
    assert [rebuilt.quantile_ms(q) for q in QUANTILES] == pytest.approx([sketch.quantile_ms(q) for q in QUANTILES])
    assert (rebuilt.count, rebuilt.sum_ms, rebuilt.min_ms, rebuilt.max_ms) == (
        len(values),
        sum(values),
        min(values),
        max(values),
    )


def test_the_chain_of_fine_hops_sums_to_the_whole_and_a_missing_clock_leaves_only_its_hops_out() -> None:
    clocks = {
        "origin_ms": np.array([1_000.0, np.nan]),
        "created_ms": np.array([1_000.0, 1_000.0]),
        "bridge_in_ms": np.array([1_200.0, 1_300.0]),
        "bridge_out_ms": np.array([1_210.0, 1_310.0]),
        "arrival_ms": np.array([1_215.0, 1_312.0]),
        "batch_start_ms": np.array([1_400.0, 1_400.0]),
        "commit_ms": np.array([1_700.0, 1_700.0]),
    }
    hops = measure(clocks)
    assert hops[WHOLE].tolist() == [700.0]
    assert sum(hops[name][0] for name in CHAIN) == 700.0
    assert hops["bridge"].tolist() == [10.0, 10.0]
