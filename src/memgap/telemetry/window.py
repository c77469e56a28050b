"""Averages over the benchmark window: time-weighted, and from samples inside the window only."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

Row = dict[str, float]

ENGINE_GAUGES = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_fraction")
ENGINE_COUNTERS = ("num_preemptions", "prompt_tokens", "generation_tokens", "prefix_cache_queries", "prefix_cache_hits")
WHOLE = 1.001
"""All of a cache; engines round."""
OWN_GAUGES = ("util_fraction", "mem_used_bytes", "power_w", "sm_clock_mhz", "energy_j", "throttled")
GPU_GAUGES = ("gpu_util_fraction", "gpu_mem_used_bytes", "gpu_power_w", "gpu_energy_j")


def left_out(column: str) -> str:
    """Return the name under which a row, or a summary, counts samples of a column that were no finite numbers."""
    return f"{column}_left_out"


def finite_cells(row: Mapping[str, float]) -> Row:
    """Return a row without what is no finite number or cannot be (a share above 1, fewer requests than none), which is
    counted under `left_out(column)`.
    """
    return dict((name, value) if _can_be(name, value) else (left_out(name), 1.0) for name, value in row.items())


def _can_be(name: str, value: float) -> bool:
    if not math.isfinite(value) or (name in ENGINE_GAUGES and value < 0):
        return False
    return value <= WHOLE or not name.startswith("kv_cache_usage")


def time_weighted_mean(rows: Sequence[Row], column: str, duration_s: float) -> float | None:
    """Return the mean of `column` over [0, duration_s], each sample holding until the next; None without a sample.

    Samples outside the window are ignored; the first one inside counts from the window's start.
    """
    inside = [(row["time_s"], row[column]) for row in rows if column in row and 0.0 <= row["time_s"] <= duration_s]
    if not inside or duration_s <= 0:
        return None
    edges = [0.0, *(time_s for time_s, _ in inside[1:]), duration_s]
    area = sum(value * (edges[i + 1] - edges[i]) for i, (_, value) in enumerate(inside))
    return area / duration_s


def maximum(rows: Sequence[Row], column: str, duration_s: float) -> float | None:
    """Return the largest value of `column` inside the window; None without a sample."""
    return max((row[column] for row in rows if column in row and 0.0 <= row["time_s"] <= duration_s), default=None)


def _fullest(rows: Sequence[Row], duration_s: float) -> float | None:
    """Return the largest share in use of any one engine's KV cache: of several engines one can be full alone."""
    found = (maximum(rows, f"kv_cache_usage{which}_fraction", duration_s) for which in ("", "_fullest"))
    return max((one for one in found if one is not None), default=None)


def increase(rows: Sequence[Row], column: str, duration_s: float) -> float | None:
    """Return by how much a counter rose from the last sample before the window to the first one after it.

    Where a side has no such sample, the nearest one inside the window is taken. None with fewer than two samples.
    """
    values = [(row["time_s"], row[column]) for row in rows if column in row]
    if len(values) < 2:
        return None
    before = [value for time_s, value in values if time_s <= 0.0] or [values[0][1]]
    after = [value for time_s, value in values if time_s >= duration_s] or [values[-1][1]]
    return after[0] - before[-1]


FULL = 0.9
"""An engine is full while it runs so large a share of the most requests that it ran in the window."""


def full_rate(rows: Sequence[Row], duration_s: float) -> float | None:
    """Return how many tokens a second the engine decoded while it was full: what it can do, whoever waits for whom.

    None where it was full for less than two neighbouring samples, or does not say so.
    """
    inside = [row for row in rows if 0.0 <= row["time_s"] <= duration_s and "num_requests_running" in row]
    most = max((row["num_requests_running"] for row in inside), default=0.0)
    tokens = lasted_s = 0.0
    for one, other in pairwise(inside):
        column = "decoded_tokens" if "decoded_tokens" in one else "generation_tokens"
        full = min(one["num_requests_running"], other["num_requests_running"]) >= FULL * most > 0
        if full and column in one and column in other:
            tokens += other[column] - one[column]
            lasted_s += other["time_s"] - one["time_s"]
    return tokens / lasted_s if lasted_s > 0 and tokens >= 0 else None


def longest_gap_s(rows: Sequence[Row], columns: Sequence[str], duration_s: float) -> float | None:
    """Return the longest part of [0, duration_s] without a sample of one of `columns`, of those that ever had one; None
    where none had.

    A sample before the window counts: it says that there was a source that can have fallen silent. So does one that was
    no finite number: it says that there is something to be read.
    """
    if duration_s <= 0:
        return None
    gaps = []
    for column in columns:
        if not any(column in row or left_out(column) in row for row in rows):
            continue
        times = sorted(row["time_s"] for row in rows if column in row and 0.0 <= row["time_s"] <= duration_s)
        edges = [0.0, *times, duration_s]
        gaps.append(max(after - before for before, after in pairwise(edges)))
    return max(gaps, default=None)


def by_gpu(rows: Sequence[Row], duration_s: float) -> list[dict[str, float]]:
    """Return what each of several GPUs did in the window, in the order of the server's GPUs; empty for one or none."""
    number, found = 0, []
    while any(f"gpu{number}_{name}" in row for row in rows for name in OWN_GAUGES):

        def own(name: str, number: int = number) -> str:
            return f"gpu{number}_{name}"

        values = {
            "util_mean_fraction": time_weighted_mean(rows, own("util_fraction"), duration_s),
            "mem_used_max_bytes": maximum(rows, own("mem_used_bytes"), duration_s),
            "power_mean_w": time_weighted_mean(rows, own("power_w"), duration_s),
            "sm_clock_mean_mhz": time_weighted_mean(rows, own("sm_clock_mhz"), duration_s),
            "energy_j": increase(rows, own("energy_j"), duration_s),
            "throttled_fraction": time_weighted_mean(rows, own("throttled"), duration_s),
        }
        found.append({name: value for name, value in values.items() if value is not None})
        number += 1
    return found


def summarise(rows: Sequence[Row], duration_s: float, output_tokens: int) -> dict[str, float]:
    """Return the telemetry part of a point's summary; what was not sampled is absent.

    The engine's gap is the whole window where its metrics never came; a GPU need not be there. `{column}_left_out` are
    samples of the window that were no finite numbers.
    """
    engine_gap_s = longest_gap_s(rows, ENGINE_GAUGES, duration_s)
    energy_j = increase(rows, "gpu_energy_j", duration_s)
    found: dict[str, float | None] = {
        "mean_running_reqs": time_weighted_mean(rows, "num_requests_running", duration_s),
        "max_running_reqs": maximum(rows, "num_requests_running", duration_s),
        "engine_full_throughput_tok_s": full_rate(rows, duration_s),
        "mean_waiting_reqs": time_weighted_mean(rows, "num_requests_waiting", duration_s),
        "kv_cache_usage_mean_fraction": time_weighted_mean(rows, "kv_cache_usage_fraction", duration_s),
        "kv_cache_usage_max_fraction": _fullest(rows, duration_s),
        "gpu_util_mean_fraction": time_weighted_mean(rows, "gpu_util_fraction", duration_s),
        "gpu_mem_used_max_bytes": maximum(rows, "gpu_mem_used_bytes", duration_s),
        "gpu_power_mean_w": time_weighted_mean(rows, "gpu_power_w", duration_s),
        "gpu_sm_clock_mean_mhz": time_weighted_mean(rows, "gpu_sm_clock_mhz", duration_s),
        "energy_j": energy_j,
        "energy_per_output_token_j": energy_j / output_tokens if energy_j is not None and output_tokens else None,
        "cpu_util_mean_fraction": time_weighted_mean(rows, "cpu_util_fraction", duration_s),
        "server_cpu_mean_cores": time_weighted_mean(rows, "server_cpu_cores", duration_s),
        "api_server_cpu_mean_cores": time_weighted_mean(rows, "api_server_cpu_cores", duration_s),
        "engine_cpu_mean_cores": time_weighted_mean(rows, "engine_cpu_cores", duration_s),
        "gpu_throttled_fraction": time_weighted_mean(rows, "gpu_throttled", duration_s),
        "gpu_foreign_processes_max": maximum(rows, "gpu_foreign_processes", duration_s),
        "server_rss_max_bytes": maximum(rows, "rss_bytes", duration_s),
        "engine_telemetry_gap_s": duration_s if engine_gap_s is None else engine_gap_s,
        "gpu_telemetry_gap_s": longest_gap_s(rows, GPU_GAUGES, duration_s),
        "telemetry_samples": float(sum(0.0 <= row["time_s"] <= duration_s for row in rows)),
    }
    for column in (*ENGINE_GAUGES, *ENGINE_COUNTERS, *GPU_GAUGES):
        odd = sum(left_out(column) in row and 0.0 <= row["time_s"] <= duration_s for row in rows)
        found[left_out(column)] = float(odd) if odd else None
    return {name: value for name, value in found.items() if value is not None}
