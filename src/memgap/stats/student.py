"""Student's t at any level, and the interval of a mean of few values, without SciPy."""

import functools
import math
import statistics
from collections.abc import Sequence

DECIMALS = 6
"""Of `t_975`: recorded intervals were made with the printed table, and keep their last digit."""


def t_tail(value: float, freedom: int) -> float:
    """Return the probability that Student's t lies above `value`, which is 0 or more."""
    if freedom < 1:
        raise ValueError(f"Student's t needs 1 degree of freedom or more, not {freedom}")
    return 0.5 * _beta_fraction(freedom / (freedom + value * value), freedom / 2, 0.5)


@functools.cache
def t_quantile(tail: float, freedom: int) -> float:
    """Return the value that Student's t exceeds with the probability `tail`, between 0 and a half."""
    if not 0.0 < tail < 0.5:
        raise ValueError(f"a tail lies between 0 and a half, {tail} does not")
    high = 1.0
    while t_tail(high, freedom) > tail:
        high *= 2.0
    low = 0.0
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if t_tail(middle, freedom) > tail else (low, middle)
    return (low + high) / 2


def t_975(freedom: int) -> float:
    """Return the 97.5 % quantile to six decimals, as tables print it; raises ValueError below 1 degree of freedom."""
    return round(t_quantile(0.025, freedom), DECIMALS)


def half_width(values: Sequence[float]) -> float:
    """Return half the width of the 95 % interval of the mean of two values or more."""
    return t_975(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))


def _beta_fraction(x: float, a: float, b: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b) by its continued fraction (Lentz)."""
    if x <= 0.0:
        return 0.0
    if x >= 1.0:
        return 1.0
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x > (a + 1) / (a + b + 2):
        return 1.0 - _beta_fraction(1.0 - x, b, a)
    tiny = 1e-300
    c, d = 1.0, 1.0 / _away(1.0 - (a + b) * x / (a + 1), tiny)
    total = d
    for step in range(1, 500):
        for term in (
            step * (b - step) * x / ((a + 2 * step - 1) * (a + 2 * step)),
            -(a + step) * (a + b + step) * x / ((a + 2 * step) * (a + 2 * step + 1)),
        ):
            d = 1.0 / _away(1.0 + term * d, tiny)
            c = _away(1.0 + term / c, tiny)
            total *= c * d
        if abs(c * d - 1.0) < 1e-15:
            break
    return front * total / a


def _away(value: float, tiny: float) -> float:
    return value if abs(value) > tiny else tiny
