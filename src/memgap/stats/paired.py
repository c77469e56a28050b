"""Faster, slower or equal: simultaneous verdicts on paired ratios of two sides.

Values are logarithms of a metric on side B less those on side A, one a block, turned so that more is better. All
intervals of a comparison hold at once with 95 %: the level is divided by their number. The spread of a mean is pooled
over the cells of a metric, and a cell's own where that is greater: a few blocks alone say next to nothing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from memgap.stats.student import t_quantile

FASTER, SLOWER, EQUAL, UNDECIDED = "faster", "slower", "equal", "undecided"
ERROR = 0.05
"""Chance that any interval of a comparison misses its ratio."""
Key = tuple[str, str]
"""Metric and cell."""
BETTER_MORE = ("request_throughput_req_s", "decode_throughput_tok_s")
BETTER_LESS = ("ttft_mean_ms", "tpot_mean_ms", "e2e_mean_ms", "decode_step_mean_ms", "prefill_s")
METRICS = (*BETTER_MORE, *BETTER_LESS)
"""What two sides are compared by, unless told otherwise."""


@dataclass(frozen=True)
class Found:
    """A ratio of side B to side A, better above 1, with its simultaneous interval; no interval from one block."""

    verdict: str
    ratio: float
    low: float | None
    high: float | None
    blocks: int


def gain(metric: str, a: float, b: float) -> float:
    """Return the logarithm of B by A, above 0 where B is better."""
    return math.log(b / a) if metric in BETTER_MORE else math.log(a / b)


def judged(differences: Mapping[Key, Sequence[float]], margin: float) -> dict[Key, Found]:
    """Return the verdict on each (metric, cell) with its differences by block, none of them empty.

    `margin`: ratios within this share of 1 are equal.
    """
    tail = ERROR / (2 * max(1, len(differences)))
    return {key: _found(own, *_pooled(differences, key[0]), tail, margin) for key, own in differences.items()}


def _pooled(differences: Mapping[Key, Sequence[float]], metric: str) -> tuple[float, int]:
    """Return the pooled standard deviation of a metric's differences and its degrees of freedom."""
    several = [own for (name, _), own in differences.items() if name == metric and len(own) > 1]
    freedom = sum(len(own) - 1 for own in several)
    squares = sum(stdev(own) ** 2 * (len(own) - 1) for own in several)
    return (math.sqrt(squares / freedom) if freedom else 0.0), freedom


def _found(own: Sequence[float], pooled: float, freedom: int, tail: float, margin: float) -> Found:
    mean = fmean(own)
    if len(own) < 2:
        return Found(UNDECIDED, math.exp(mean), None, None, len(own))
    half = t_quantile(tail, freedom) * max(pooled, stdev(own)) / math.sqrt(len(own))
    low, high = mean - half, mean + half
    return Found(verdict_of(low, high, margin), math.exp(mean), math.exp(low), math.exp(high), len(own))


def verdict_of(low: float, high: float, margin: float) -> str:
    """Return the verdict on an interval of logarithms; one that lies within the margin is equal, whatever its sign."""
    if -math.log1p(margin) <= low and high <= math.log1p(margin):
        return EQUAL
    return FASTER if low > 0 else SLOWER if high < 0 else UNDECIDED
