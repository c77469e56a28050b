"""95 % intervals of the mean: over repeats of a point, and where it was measured once within that run.

Two to four repeats: Student's t. Five or more: the bootstrap percentile interval in its expanded form (Hesterberg 2015,
"What Teachers Should Know About the Bootstrap"), because the plain one is too narrow for so few values:
see the coverage in docs/measurement.md, measured by benchmarks/interval_coverage.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from memgap.stats.averaging import LATENCIES, STEADY
from memgap.stats.student import half_width, t_975

if TYPE_CHECKING:  # sessions use the rest in environments without pandas
    import pandas as pd

Z = NormalDist().inv_cdf(0.975)
"""97.5 % quantile of the normal distribution: all intervals here are of 95 %."""
LEAST_BOOTSTRAP = 5
"""From so many repeats on the bootstrap is used, below it Student's t."""
RESAMPLES = 10_000
SEED = 20250311
WITHIN_RUN: Mapping[str, str] = {
    "total_throughput_tok_s": "steady_output_throughput_ci95_fraction",
    "output_throughput_tok_s": "steady_output_throughput_ci95_fraction",
}
"""Columns of the table of points with an interval from within one run: its half width by the mean. Latencies have one
too where they are of the steady part."""
WITHIN_ONE_RUN = "within one run, batch means, 95 %"

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A 95 % interval in its quantity's unit, and how it came about."""

    low: float
    high: float
    source: str


def mean_interval(values: Sequence[float], name: str = "repeats") -> Interval | None:
    """Return the interval of the mean of `values`; None for fewer than two. `name` says in the source what they are."""
    count = len(values)
    if count < 2:
        return None
    if count < LEAST_BOOTSTRAP:
        return student_interval(values, name)
    low, high = bootstrap_bounds(values)
    return Interval(low, high, f"{count} {name}, bootstrap, 95 %")


def student_interval(values: Sequence[float], name: str = "repeats") -> Interval | None:
    """Return the interval of the mean by Student's t, however many values there are; None for fewer than two.

    It keeps its level for paired differences of few blocks, where the bootstrap is still too narrow.
    """
    if len(values) < 2:
        return None
    mean, half = float(np.mean(values)), half_width(values)
    return Interval(mean - half, mean + half, f"{len(values)} {name}, Student t, 95 %")


def bootstrap_bounds(values: Sequence[float]) -> tuple[float, float]:
    """Return the expanded percentile bounds of the mean of two or more values, seeded and whatever their order.

    The quantiles lie further out than 2.5 % and 97.5 %, so that for normal values the width is that of Student's t.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    drawn = np.random.default_rng(SEED).integers(0, len(ordered), (RESAMPLES, len(ordered)))
    tail = NormalDist().cdf(-expansion(len(ordered)))
    low, high = np.quantile(ordered[drawn].mean(axis=1), [tail, 1 - tail])
    return float(low), float(high)


def expansion(count: int) -> float:
    """Return the half width of Student's t in standard deviations of the resampled mean of `count` values."""
    return t_975(count - 1) * math.sqrt(count / (count - 1))


def within_run_interval(mean: float, half_width_fraction: float) -> Interval | None:
    """Return the interval of one run from its batch means (see `memgap.load.steady`); None where that is not known.

    It holds the variation in the run and none from run to run.
    """
    if not (math.isfinite(mean) and math.isfinite(half_width_fraction)):
        return None
    half = mean * half_width_fraction
    return Interval(mean - half, mean + half, WITHIN_ONE_RUN)


def column_interval(points: pd.DataFrame, column: str) -> Interval | None:
    """Return the interval of the mean of a column over points of the table that were measured alike but for `repeat`.

    Where a repeat's number occurs twice, points of different settings are pooled, and the source says so. Cut at 0,
    since no column of the table can be negative.
    """
    rows = points[points[column].notna()]
    values = rows[column].astype(float).tolist()
    within = _within_run(rows, column)
    if len(values) == 1 and within is not None:
        found = within_run_interval(values[0], float(rows[within].astype(float).iloc[0]))
    else:
        pooled = rows["repeat"].dropna().duplicated().any()
        found = mean_interval(values, "points of different settings" if pooled else "repeats")
    return found and Interval(max(0.0, found.low), found.high, found.source)


def _within_run(rows: pd.DataFrame, column: str) -> str | None:
    """Return the column with the half width, by its value, of an interval from within one run, if there is one."""
    rate = column.removeprefix("window_")
    if rate in WITHIN_RUN:
        return WITHIN_RUN[rate]
    own = f"steady_{column.removesuffix('_ms')}_ci95_fraction"
    latency = column.startswith(tuple(f"{name}_" for name in LATENCIES))
    steady = "averaging" in rows and bool(rows["averaging"].eq(STEADY).fillna(False).all())
    return own if latency and steady and own in rows else None


def named_sources(intervals: Mapping[str, Interval | None]) -> str:
    """Return in words where the intervals of some quantities come from: "3 repeats, Student t, 95 %", with the
    quantities' names behind it where not all have an interval of that kind, and "" where none has one.
    """
    names: dict[str, list[str]] = {}
    for name, found in intervals.items():
        if found is not None:
            names.setdefault(found.source, []).append(name)
    return "; ".join(
        source if len(own) == len(intervals) else f"{source} ({', '.join(own)})" for source, own in names.items()
    )
