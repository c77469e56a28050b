"""The numbers of a tuning's tables: throughput per GPU, GPU days, energy and cost of a configuration."""

from collections.abc import Mapping
from typing import Any

from memgap.roofline.gpus import bears
from memgap.stats.averaging import OUTPUT, STEADY, TOTAL, steady_value

DAY_S, HOUR_S = 86_400.0, 3_600.0
GPUS_PER_NODE = 8
BILLION, MILLION = 1e9, 1e6


def per_gpu(summary: Mapping[str, float], gpus: int, averaging: str = STEADY) -> dict[str, float]:
    """Return what follows from one measurement of a server on `gpus` GPUs (tensor x pipeline x data parallel).

    Rates are of the steady part where `averaging` asks for it and the point has one. Other times are those of the
    window, without the server's start and the warm-up. Empty where nothing was measured.
    """
    seconds, done = summary.get("duration_s"), summary.get("requests_completed")
    if not seconds or not done:
        return {}
    output, prompt = summary.get("output_tokens", 0.0), summary.get("prompt_tokens", 0.0)
    input_s, output_s = prompt / seconds, output / seconds
    steady, total = steady_value(summary, OUTPUT), steady_value(summary, TOTAL)
    if averaging == STEADY and steady is not None and total is not None:
        input_s, output_s = total - steady, steady
    found = {
        "tokens_input_per_sec": input_s,
        "tokens_output_per_sec": output_s,
        "input_tps_per_gpu": input_s / gpus,
        "output_tps_per_gpu": output_s / gpus,
        "inference_per_1k_per_gpu_s": seconds / done * 1000 * gpus,
        "mean_input_tokens": prompt / done,
        "mean_output_tokens": output / done,
    }
    tps = found["output_tps_per_gpu"]
    if tps > 0:
        days = BILLION / tps / DAY_S
        found["gpu_days_to_process_1b_tokens"] = days
        found["node_days_to_process_1b_tokens"] = days / GPUS_PER_NODE
        found["gpus_for_1b_tokens_per_hour"] = BILLION / (tps * HOUR_S)
    return found


def cost(found: Mapping[str, float], usd_per_gpu_hour: float | None) -> dict[str, float]:
    """Return USD per million tokens at a price; nothing without a price. `found` is what `per_gpu` returned."""
    if usd_per_gpu_hour is None or "output_tps_per_gpu" not in found:
        return {}
    usd_per_s = usd_per_gpu_hour / HOUR_S
    output = found["output_tps_per_gpu"]
    return {
        "usd_per_million_output_tokens": usd_per_s / output * MILLION,
        "usd_per_million_tokens": usd_per_s / (output + found["input_tps_per_gpu"]) * MILLION,
    }


def price(hardware: Mapping[str, Any], prices: Mapping[str, float]) -> float | None:
    """Return the price of a GPU hour on this hardware: of the longest name in the table that is part of its name."""
    name = str(hardware.get("gpu_name") or "CPU")
    fitting = [known for known in prices if bears(name, known)]
    return prices[max(fitting, key=len)] if fitting else None


def clock_text(seconds: float) -> str:
    """Return seconds as h:mm:ss."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"
