"""One point's numbers from its steps and device counters."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from memgap.kinds.offline.gpu_counters import Row, phase_means
from memgap.kinds.offline.steps import SEGMENTS


def summarize_steps(
    steps: Sequence[Mapping[str, str]], device: Mapping[str, Sequence[Row]], lengths: Sequence[Sequence[int]]
) -> dict[str, float]:
    """Return a point's summary: seconds of each phase, statistics of decode steps in ms, means of their parts in ms.

    `steps` are the rows of a worker's steps.csv; `device` the rows of device counters by phase; `lengths` prompt and
    output tokens of each request. Means of parts are over
    all decode steps. Absent for a phase without steps.
    """
    found: dict[str, float] = {}
    for phase in ("prefill", "decode"):
        own = [one for one in steps if one["phase"] == phase]
        found[f"{phase}_steps"] = len(own)
        found[f"{phase}_s"] = sum(float(one["wall_s"]) for one in own)
        found.update(phase_means(list(device.get(phase, ())), phase))
    found["total_s"] = found["prefill_s"] + found["decode_s"]
    decode = [one for one in steps if one["phase"] == "decode"]
    clocks = [row["sm_clock_mhz"] for rows in device.values() for row in rows if "sm_clock_mhz" in row]
    if clocks:
        found["sm_clock_mean_mhz"] = fmean(clocks)
    powers = [row["power_w"] for row in device.get("decode", ()) if "power_w" in row]
    if powers:
        found["decode_power_mean_w"] = fmean(powers)
    found["kv_cache_usage_max_fraction"] = max((float(one["kv_cache_usage_fraction"]) for one in steps), default=0.0)
    if not decode:
        return found
    walls_ms = sorted(float(one["wall_s"]) * 1e3 for one in decode)
    found["decode_step_mean_ms"] = fmean(walls_ms)
    found["decode_step_p50_ms"] = _quantile(walls_ms, 0.5)
    found["decode_step_p99_ms"] = _quantile(walls_ms, 0.99)
    found["decode_throughput_tok_s"] = sum(int(one["tokens"]) for one in decode) / found["decode_s"]
    # of each request the decode steps that it had, the first of which has one token beside the prompt
    had = [(prompt, min(output - 1, len(decode))) for prompt, output in lengths]
    if taken := sum(own for _, own in had):
        found["context_mean_tokens"] = sum(own * (prompt + (own + 1) / 2) for prompt, own in had) / taken
    for name in (*SEGMENTS, "rest_s"):
        found[f"{name.removesuffix('_s')}_ms"] = fmean(float(one[name]) for one in decode) * 1e3
    found["wall_ms"] = found["decode_step_mean_ms"]
    return found


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest value with at least that share of the values at or below it."""
    return ordered[max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1)]
