"""Student's t at any level, and the exact sign-flip test, without SciPy."""

import functools
import itertools
import math
from collections.abc import Sequence

MOST_FLIPPED = 16
"""With more differences than this the sign flips are too many to count."""


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


def sign_flip_p(differences: Sequence[float]) -> float | None:
    """Return the two-sided p of paired differences: the share of their sign flips with a mean as far from 0.

    Every flip is counted, so it is exact where differences are symmetric about 0. None for none of them or too many.
    """
    if not 0 < len(differences) <= MOST_FLIPPED:
        return None
    seen = abs(math.fsum(differences)) * (1 - 1e-12)
    flips = itertools.product((1.0, -1.0), repeat=len(differences))
    found = [abs(math.fsum(sign * one for sign, one in zip(signs, differences, strict=True))) for signs in flips]
    return sum(one >= seen for one in found) / len(found)


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
