"""Student's t: the interval of a mean of few values."""

import math
import statistics
from collections.abc import Sequence

T_975 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
)
"""97.5 % quantiles for 1 to 20 degrees of freedom."""


def t_975(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t; beyond the table by its expansion in 1 / freedom, to 0.001."""
    if freedom < 1:
        raise ValueError("an interval needs two values at least")
    if freedom <= len(T_975):
        return T_975[freedom - 1]
    z = statistics.NormalDist().inv_cdf(0.975)
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of the mean of two values or more."""
    mean = statistics.fmean(values)
    half = t_975(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return mean - half, mean + half
