"""How busy the GPU was, and how much the replicas overlapped, from intervals of kernels."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Intervals = NDArray[np.float64]
"""Shape (n, 2): start and end in seconds."""


def union(intervals: Intervals) -> Intervals:
    """Return the intervals joined where they touch or overlap, in order."""
    joined: list[list[float]] = []
    for start, end in sorted(intervals.tolist()):
        if joined and start <= joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], end)
        else:
            joined.append([start, end])
    return np.array(joined, dtype=np.float64).reshape(-1, 2)


def clip(intervals: Intervals, start_s: float, end_s: float) -> Intervals:
    """Return the parts of the intervals inside a window."""
    inside = np.clip(intervals, start_s, end_s)
    kept: Intervals = inside[inside[:, 1] > inside[:, 0]]
    return kept


def length_s(intervals: Intervals) -> float:
    """Return how long the union of the intervals is."""
    joined = union(intervals)
    return float((joined[:, 1] - joined[:, 0]).sum())


def shares(by_replica: Mapping[int, Intervals], start_s: float, end_s: float) -> dict[str, float]:
    """Return shares of a window: `busy_fraction` (any replica), `overlap_fraction` (two at least at the same time) and
    `replica<N>_busy_fraction` of each.
    """
    window_s = end_s - start_s
    inside = {replica: union(clip(found, start_s, end_s)) for replica, found in by_replica.items()}
    everything = np.concatenate([*inside.values(), np.empty((0, 2))])
    found = {f"replica{replica}_busy_fraction": length_s(one) / window_s for replica, one in inside.items()}
    return {
        "busy_fraction": length_s(everything) / window_s,
        "overlap_fraction": _at_least_two_s(everything) / window_s,
        **found,
    }


def _at_least_two_s(intervals: Intervals) -> float:
    """Return for how long two intervals or more cover the same moment."""
    edges = [(start, 1) for start in intervals[:, 0]] + [(end, -1) for end in intervals[:, 1]]
    total_s, depth, last_s = 0.0, 0, 0.0
    for moment_s, change in sorted(edges):
        if depth >= 2:
            total_s += moment_s - last_s
        depth, last_s = depth + change, moment_s
    return total_s
