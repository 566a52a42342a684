"""How far ahead executors are sent: by density, never far beyond what was seen."""

from hypothesis import given
from hypothesis import strategies as st

from streaming_job.kinesis.catchup import STEP_GROWTH_MAX, STEP_MS_MAX, Density, step_ms
from streaming_job.kinesis.rows import Rows


def rows_over(count: int, span_ms: int, size: int = 100) -> Rows:
    arrivals = [index * span_ms // max(1, count - 1) for index in range(count)]
    return Rows.of([str(n) for n in range(count)], arrivals, ["k"] * count, [b"x" * size] * count)


@given(
    st.floats(1e-6, 1e3), st.floats(0, 1e6), st.integers(1, 10**6), st.integers(1, 10**9), st.integers(1, STEP_MS_MAX)
)
def test_a_step_stays_within_both_limits_and_the_growth_allowed(
    rows: float, size: float, rows_max: int, size_max: int, last_ms: int
) -> None:
    step = step_ms(Density(rows, size), rows_max=rows_max, size_max=size_max, last_step_ms=last_ms)
    assert 1 <= step <= STEP_MS_MAX
    assert step == 1 or (step * rows <= rows_max and step * size <= size_max)
    assert step <= max(1, last_ms * STEP_GROWTH_MAX)


def test_density_is_of_the_time_the_sample_covers() -> None:
    density = Density.of(rows_over(1000, 10_000))
    assert density is not None
    assert density.rows == 0.1
    assert density.size == 10.0


def test_records_of_one_call_in_one_millisecond_do_not_count_as_a_thousandfold_rate() -> None:
    density = Density.of(rows_over(200, 0))
    assert density is not None
    assert density.rows == 4.0


def test_of_two_stretches_the_denser_counts_for_what_lies_between() -> None:
    assert Density(1.0, 5.0).over(Density(2.0, 3.0)) == Density(2.0, 5.0)
    assert Density(1.0, 5.0).over(None) == Density(1.0, 5.0)
    assert Density.of(Rows()) is None
