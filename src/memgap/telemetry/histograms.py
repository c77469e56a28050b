"""What the engine's own latency histograms say about a window: the change of each between two metrics pages."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from memgap.telemetry.prometheus import Page


@dataclass(frozen=True)
class Histogram:
    """A Prometheus histogram in seconds: `buckets` maps each upper bound to the count of values up to it."""

    total_s: float
    count: float
    buckets: Mapping[float, float]

    def since(self, before: "Histogram | None") -> "Histogram":
        """Return what was added after `before`; all of it without one."""
        if before is None:
            return self
        grown = {bound: value - before.buckets.get(bound, 0.0) for bound, value in self.buckets.items()}
        return Histogram(self.total_s - before.total_s, self.count - before.count, grown)

    def quantile_bounds_s(self, share: float) -> tuple[float, float] | None:
        """Return the edges of the bucket that the quantile lies in, in seconds; None without values."""
        if self.count <= 0:
            return None
        lower = 0.0
        for bound in sorted(self.buckets):
            if self.buckets[bound] >= share * self.count:
                return lower, bound
            lower = bound
        return None


def read_histogram(page: Page, name: str) -> Histogram | None:
    """Return a histogram, summed over its label sets; None where the page has none of that name, or not in finite
    numbers. Without buckets where one of them is no finite number or has no bound.
    """
    if f"{name}_count" not in page:
        return None
    total_s, count = _sum(page, f"{name}_sum"), _sum(page, f"{name}_count")
    if not (math.isfinite(total_s) and math.isfinite(count)):
        return None
    buckets: dict[float, float] = {}
    for labels, value in page.get(f"{name}_bucket", []):
        bound = _bound(labels.get("le", ""))
        if bound is None or not math.isfinite(value):
            return Histogram(total_s, count, {})
        buckets[bound] = buckets.get(bound, 0.0) + value
    return Histogram(total_s, count, buckets)


def _bound(label: str) -> float | None:
    try:
        bound = float(label)
    except ValueError:
        return None
    return None if math.isnan(bound) else bound


def server_latencies(before: Page, after: Page, names: Mapping[str, tuple[str, ...]]) -> dict[str, float]:
    """Return `server_{metric}_mean_ms`, `_p99_low_ms` and `_p99_high_ms` for the window between two pages.

    `names` gives for each metric the engine's histograms, the first one present is taken. Means are exact, percentiles
    are known up to their bucket (`_p99_high_ms` is absent in the open last one, both are where buckets cannot be read).
    A histogram that cannot be read before the window says nothing about it, nor one that was set back.
    """
    summary: dict[str, float] = {}
    for metric, candidates in names.items():
        name = next((one for one in candidates if f"{one}_count" in after), None)
        found = read_histogram(after, name) if name else None
        if name is None or found is None:
            continue
        start = read_histogram(before, name)
        if start is None and f"{name}_count" in before:
            continue
        grown = found.since(start)
        if grown.count <= 0 or grown.total_s < 0:
            continue
        summary[f"server_{metric}_mean_ms"] = grown.total_s / grown.count * 1e3
        bounds = grown.quantile_bounds_s(0.99)
        if bounds is None:
            continue
        summary[f"server_{metric}_p99_low_ms"] = bounds[0] * 1e3
        if bounds[1] != float("inf"):
            summary[f"server_{metric}_p99_high_ms"] = bounds[1] * 1e3
    return summary


def _sum(page: Page, name: str) -> float:
    return sum(value for _, value in page.get(name, []))
