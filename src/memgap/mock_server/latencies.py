"""The engine's own latency histograms, as vLLM publishes them."""

from bisect import bisect_left

_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
NAMES = {
    "ttft": "time_to_first_token_seconds",
    "itl": "inter_token_latency_seconds",
    "e2e": "e2e_request_latency_seconds",
}


class Latency:
    """One histogram."""

    def __init__(self) -> None:
        self._counts = [0] * (len(_BOUNDS_S) + 1)
        self._total_s = 0.0

    def add(self, value_s: float) -> None:
        """Count one value."""
        self._counts[bisect_left(_BOUNDS_S, value_s)] += 1
        self._total_s += value_s

    def lines(self, name: str, labels: str) -> list[str]:
        """Return the lines of the metrics page."""
        lines = [f"# HELP {name} Latency in seconds.", f"# TYPE {name} histogram"]
        seen = 0
        for bound, count in zip((*map(str, _BOUNDS_S), "+Inf"), self._counts, strict=True):
            seen += count
            lines.append(f'{name}_bucket{{{labels},le="{bound}"}} {float(seen)}')
        return [*lines, f"{name}_count{{{labels}}} {float(seen)}", f"{name}_sum{{{labels}}} {self._total_s}"]


class Latencies:
    """TTFT and E2E, one value a request, and ITL, one a token after the first."""

    def __init__(self) -> None:
        self.ttft, self.itl, self.e2e = Latency(), Latency(), Latency()

    def lines(self, labels: str) -> list[str]:
        """Return the lines of the metrics page."""
        return [line for metric, name in NAMES.items() for line in getattr(self, metric).lines(f"vllm:{name}", labels)]
