"""Intervals over repeats cover the true mean about as often as they say, and name where they come from."""

import math

import numpy as np
import pandas as pd
import pytest

from memgap.stats.intervals import (
    WITHIN_ONE_RUN,
    Interval,
    bootstrap_bounds,
    column_interval,
    mean_interval,
    named_sources,
    within_run_interval,
)
from memgap.stats.student import half_width, t_975
from memgap.tables.points import as_table


def t_tail(value: float, degrees: int) -> float:
    """Return the share of Student's t beyond `value`, by integrating its density up to there (trapezoids)."""
    scale = math.gamma((degrees + 1) / 2) / (math.sqrt(degrees * math.pi) * math.gamma(degrees / 2))
    x = np.linspace(0.0, value, 200_001)
    return 0.5 - float(np.trapezoid(scale * (1 + x**2 / degrees) ** (-(degrees + 1) / 2), x))


@pytest.mark.parametrize("degrees", [*range(1, 12), 20, 50, 200])
def test_quantiles_leave_a_fortieth_in_the_tail(degrees: int) -> None:
    assert t_tail(t_975(degrees), degrees) == pytest.approx(0.025, abs=1e-5)


def test_quantiles_need_a_degree_of_freedom() -> None:
    with pytest.raises(ValueError, match="1 degree of freedom or more, not 0"):
        t_975(0)


def test_three_repeats_are_student_t() -> None:
    found = mean_interval([9.0, 10.0, 11.0])
    assert found is not None
    assert (found.low, found.high) == pytest.approx((10 - 4.302653 / 3**0.5, 10 + 4.302653 / 3**0.5))
    assert found.source == "3 repeats, Student t, 95 %"


def test_five_repeats_are_the_bootstrap_and_equal_in_any_order() -> None:
    values = [100.0, 101.0, 99.0, 103.0, 98.0]
    found = mean_interval(values)
    assert found is not None
    assert found.source == "5 repeats, bootstrap, 95 %"
    assert min(values) <= found.low < 100.2 < found.high <= max(values)
    assert mean_interval(sorted(values)) == found


def test_the_bootstrap_is_as_wide_as_student_t_for_many_normal_values() -> None:
    values = list(np.random.default_rng(2).normal(50, 3, 60))
    low, high = bootstrap_bounds(values)
    assert (high - low) / 2 == pytest.approx(half_width(values), rel=0.05)


def test_the_bootstrap_leans_to_the_long_tail() -> None:
    values = [10.0, 10.1, 9.9, 10.0, 10.1, 9.9, 10.0, 14.0]
    low, high = bootstrap_bounds(values)
    assert high - np.mean(values) > np.mean(values) - low


def test_one_value_has_no_interval_and_equal_values_have_one_without_width() -> None:
    assert mean_interval([5.0]) is None
    assert mean_interval([]) is None
    for count in (3, 6):
        found = mean_interval([5.0] * count)
        assert found is not None
        assert (found.low, found.high) == (5.0, 5.0)


@pytest.mark.parametrize(
    ("repeats", "least", "most"), [(2, 0.93, 0.97), (4, 0.93, 0.97), (5, 0.88, 0.95), (10, 0.91, 0.97)]
)
def test_coverage(repeats: int, least: float, most: float) -> None:
    rng = np.random.default_rng(7)
    runs = 1000 if repeats < 5 else 400
    found = [mean_interval(list(rng.normal(1000, 20, repeats))) for _ in range(runs)]
    covered = sum(one is not None and one.low <= 1000 <= one.high for one in found) / runs
    assert least <= covered <= most


def test_within_a_run_the_interval_is_that_of_the_batch_means() -> None:
    assert within_run_interval(200.0, 0.05) == Interval(190.0, 210.0, WITHIN_ONE_RUN)
    assert within_run_interval(200.0, math.nan) is None
    assert within_run_interval(math.nan, 0.1) is None


def points(values: list[float], **changes: object) -> pd.DataFrame:
    """Return a table of points with these throughputs."""
    rows = [{"total_throughput_tok_s": value, "repeat": i, **changes} for i, value in enumerate(values)]
    return as_table(rows)


def test_a_column_takes_its_repeats_before_what_is_known_within_a_run() -> None:
    half = {"steady_output_throughput_ci95_fraction": 0.1, "itl_mean_ms": 3.0}
    once, twice = as_table([{"total_throughput_tok_s": 50.0, **half}]), points([50.0, 52.0], **half)
    assert column_interval(once, "total_throughput_tok_s") == Interval(45.0, 55.0, WITHIN_ONE_RUN)
    assert column_interval(once, "itl_mean_ms") is None
    found = column_interval(twice, "total_throughput_tok_s")
    assert found is not None
    assert found.source == "2 repeats, Student t, 95 %"


def test_a_column_without_values_has_no_interval_and_missing_ones_do_not_count() -> None:
    assert column_interval(as_table([]), "itl_mean_ms") is None
    found = column_interval(points([50.0, 52.0, math.nan]), "total_throughput_tok_s")
    assert found is not None
    assert found.source.startswith("2 repeats")


def test_bounds_are_not_negative() -> None:
    found = column_interval(points([1.0, 9.0]), "total_throughput_tok_s")
    assert found is not None
    assert found.low == 0.0


def test_pooled_settings_are_not_called_repeats() -> None:
    found = column_interval(points([50.0, 52.0, 54.0], repeat=0), "total_throughput_tok_s")
    assert found is not None
    assert found.source == "3 points of different settings, Student t, 95 %"


def test_sources_in_words() -> None:
    one, other = Interval(1, 2, "a"), Interval(1, 2, "b")
    assert named_sources({"x": one, "y": one}) == "a"
    assert named_sources({"x": one, "y": None}) == "a (x)"
    assert named_sources({"x": one, "y": other}) == "a (x); b (y)"
    assert named_sources({"x": None}) == ""
