"""Student's t: the interval of a mean of few values."""

import math
import statistics
from collections.abc import Sequence

_T = (12.706205, 4.302653, 3.182446, 2.776445, 2.570582, 2.446912, 2.364624, 2.306004, 2.262157)


def t_975(freedom: int) -> float:
    """Return the 97.5 % quantile: from a table up to 9 degrees of freedom, then to within 0.0002 by its expansion in
    1 / freedom (Fisher and Cornish 1960).
    """
    if freedom < 1:
        raise ValueError(f"Student's t needs 1 degree of freedom or more, not {freedom}")
    if freedom <= len(_T):
        return _T[freedom - 1]
    z = statistics.NormalDist().inv_cdf(0.975)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3


def half_width(values: Sequence[float]) -> float:
    """Return half the width of the 95 % interval of the mean of two values or more."""
    return t_975(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
