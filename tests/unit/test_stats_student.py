"""Student's t at any level, and the exact sign-flip test."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memgap.stats.sign_flip import sign_flip_p
from memgap.stats.student import t_975, t_quantile, t_tail


@pytest.mark.parametrize(
    ("tail", "freedom", "value"),
    [(0.05, 1, 6.3138), (0.025, 4, 2.7764), (0.001, 2, 22.3271), (0.0005, 9, 4.7809), (0.01, 30, 2.4573)],
)
def test_quantiles_are_those_of_the_tables(tail: float, freedom: int, value: float) -> None:
    assert t_quantile(tail, freedom) == pytest.approx(value, rel=1e-4)


def test_recorded_intervals_keep_the_digits_of_the_printed_table() -> None:
    printed = [12.706205, 4.302653, 3.182446, 2.776445, 2.570582, 2.446912, 2.364624, 2.306004, 2.262157, 2.228139]
    assert [t_975(freedom) for freedom in range(1, 11)] == printed


@given(st.floats(1e-6, 0.49), st.integers(1, 60))
def test_tail_and_quantile_are_inverse(tail: float, freedom: int) -> None:
    assert t_tail(t_quantile(tail, freedom), freedom) == pytest.approx(tail, rel=1e-6)


def test_the_sign_flip_test_counts_flips() -> None:
    assert sign_flip_p([1.0, 2.0, 3.0]) == 2 / 8
    assert sign_flip_p([1.0, -1.0]) == 1.0
    assert sign_flip_p([]) is None and sign_flip_p([1.0] * 17) is None


@pytest.mark.parametrize(("tail", "freedom"), [(0.5, 3), (0.0, 3), (0.1, 0)])
def test_levels_that_are_none_are_refused(tail: float, freedom: int) -> None:
    with pytest.raises(ValueError):
        t_quantile(tail, freedom)
