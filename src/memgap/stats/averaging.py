"""Over what a point's throughputs and latencies are averaged: the steady part of its run, or the whole window.

A run begins with an empty server and ends with its last requests alone, so an average over all of it depends on how
long one measured; see `memgap.load.steady`. Where a point has a steady part its values are taken, else those of the
window. Whoever reads a throughput or a latency of a point's summary asks `value`. Sessions and restored points use
this, so nothing here needs numpy.
"""

from collections.abc import Mapping
from typing import Any

STEADY, WINDOW = "steady", "window"
AVERAGINGS = (STEADY, WINDOW)
LEAST_SHARE = 0.2
"""A steady part shorter than this share of the window is none: the run was too short."""
STATISTICS = ("mean", "median", "std", "p90", "p95", "p99", "p999")
_FEW = ("mean", "median", "p99")
LATENCIES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("ttft", "tpot", "itl", "e2e"), STATISTICS),
    **dict.fromkeys(("itl_chunk", "normalized_latency", "ttft_text", "ttft_answer"), _FEW),
}
"""Latencies and those of their statistics that tables have."""
OUTPUT, TOTAL, REQUESTS = "output_throughput_tok_s", "total_throughput_tok_s", "request_throughput_req_s"
AVERAGED = (
    *(REQUESTS, OUTPUT, TOTAL, "mean_running_reqs"),
    *(f"{name}_{statistic}_ms" for name, statistics in LATENCIES.items() for statistic in statistics),
)
"""The values of a summary that have a steady part; with the prefix `steady_` that part's own."""

Summary = Mapping[str, float]


def averaging_of(summary: Summary, averaging: str = STEADY) -> str:
    """Return what a point's values are averaged over where `averaging` is asked for: "window" without a steady part."""
    share = summary.get("steady_share_fraction", 1.0)
    has_one = f"steady_{OUTPUT}" in summary and share >= LEAST_SHARE
    return STEADY if averaging == STEADY and has_one else WINDOW


def value(summary: Summary, name: str, averaging: str = STEADY) -> float | None:
    """Return a value of a summary, of the steady part where that is asked for and there is one, else of the window.

    None where there is neither. Names that are not in `AVERAGED` are the summary's own.
    """
    found = steady_value(summary, name) if averaging == STEADY else None
    return summary.get(name) if found is None else found


def steady_value(summary: Summary, name: str) -> float | None:
    """Return a value of the steady part, None where the point has none or did not keep this one."""
    if name not in AVERAGED or averaging_of(summary) != STEADY:
        return None
    kept = summary.get(f"steady_{name}")
    return derived(summary).get(f"steady_{name}") if kept is None else kept


def derived(summary: Summary) -> dict[str, float]:
    """Return the steady throughputs that follow from the steady output throughput, where it is there.

    Each output token has as many prompt tokens, and as much of a request, as the completed requests of the whole run
    have; see "The steady part" in docs/measurement.md. Points that were measured before these were kept have them so.
    """
    output, rate = summary.get("output_tokens"), summary.get(f"steady_{OUTPUT}")
    if not output or rate is None:
        return {}
    found = {}
    if "prompt_tokens" in summary:
        found[f"steady_{TOTAL}"] = rate * (1 + summary["prompt_tokens"] / output)
    if "requests_completed" in summary:
        found[f"steady_{REQUESTS}"] = rate * summary["requests_completed"] / output
    return found


def restored(summary: Summary, load: Mapping[str, Any]) -> dict[str, float]:
    """Return the summary of a recorded point by today's rule of the steady part, as far as it can be told.

    The rule begins not before as many requests have ended as there are seats; of a closed loop of two requests a seat
    or fewer that is when its last one is sent, so there is no steady part, whatever was recorded as one. What follows
    from a steady output throughput is added. `load` is the record's.
    """
    seats = load.get("concurrency")
    sent = summary.get("requests_sent", load.get("requests", 0))
    if averaging_of(summary) == STEADY and load.get("arrival") == "closed" and seats and sent <= 2 * seats:
        kept = {name: one for name, one in summary.items() if not name.startswith("steady_")}
        end_s = summary.get("steady_end_s", 0.0)
        return {**kept, "steady_start_s": end_s, "steady_end_s": end_s, "steady_share_fraction": 0.0}
    return {**derived(summary), **summary}


def chosen(summary: Summary, averaging: str = STEADY) -> dict[str, float]:
    """Return a summary with the values of `AVERAGED` replaced by the chosen ones."""
    found = {name: value(summary, name, averaging) for name in AVERAGED}
    return {**summary, **{name: one for name, one in found.items() if one is not None}}


def of_window(summary: Summary, averaging: str = STEADY) -> str | None:
    """Return the values that a point with a steady part did not keep of it, such as "ttft, itl_p99_ms".

    A latency all of whose statistics are of the window is named alone. None where there are none.
    """
    if averaging_of(summary, averaging) == WINDOW:
        return None
    missing = {name for name in AVERAGED if name in summary and steady_value(summary, name) is None}
    for latency, statistics in LATENCIES.items():
        own = {f"{latency}_{statistic}_ms" for statistic in statistics}
        if own & summary.keys() and own & summary.keys() <= missing:
            missing = (missing - own) | {latency}
    order = [*AVERAGED, *LATENCIES]
    return ", ".join(sorted(missing, key=order.index)) or None


def is_of_window(listed: object, name: str) -> bool:
    """Whether a value is among those that `of_window` listed."""
    names = str(listed).split(", ")
    return name in names or any(name.startswith(f"{latency}_") and latency in names for latency in _families(name))


def _families(name: str) -> list[str]:
    return [latency for latency in LATENCIES if name in {f"{latency}_{one}_ms" for one in LATENCIES[latency]}]
