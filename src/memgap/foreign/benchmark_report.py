"""A point as an llm-d Benchmark Report 0.2.1. All values are of the whole window, as its readers expect."""

import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from memgap import __version__
from memgap.canonical import content_key
from memgap.engine.given import GivenFlags

VERSION = "0.2.1"
LATENCIES = {
    "time_to_first_token": "ttft",
    "normalized_time_per_output_token": "normalized_latency",
    "time_per_output_token": "tpot",
    "inter_token_latency": "itl",
    "request_latency": "e2e",
}
PER_TOKEN = ("normalized_latency", "tpot", "itl")
STATISTICS = {"stddev": "std", "p50": "median", "p90": "p90", "p95": "p95", "p99": "p99", "p99p9": "p999"}
OBSERVED = {
    "kv_cache_usage": ("kv_cache_usage_mean_fraction", "kv_cache_usage_max_fraction", "fraction"),
    "gpu_utilization": ("gpu_util_mean_fraction", None, "fraction"),
    "power_consumption": ("gpu_power_mean_w", None, "Watts"),
    "running_requests": ("mean_running_reqs", "max_running_reqs", "count"),
    "waiting_requests": ("mean_waiting_reqs", None, "count"),
    "preemptions": ("preemptions", None, "count"),
}


def write(point: Mapping[str, Any], requests: Any = None) -> dict[str, Any]:
    """Return a point as a report; what was not measured is left out."""
    summary, record = point["summary"], point["record"]
    latency = {theirs: _latency(summary, ours) for theirs, ours in LATENCIES.items()}
    throughput = {
        "output_token_rate": _mean(summary.get("output_throughput_tok_s"), "tokens/s"),
        "total_token_rate": _mean(summary.get("total_throughput_tok_s"), "tokens/s"),
        "request_rate": _mean(summary.get("request_throughput_req_s"), "queries/s"),
    }
    done = summary.get("requests_completed", 0.0)
    lengths = {
        f"{theirs}_length": _mean(summary.get(f"{ours}_tokens", math.nan) / done if done else None, "count")
        for theirs, ours in (("input", "prompt"), ("output", "output"))
    }
    total, failed = int(summary.get("requests_sent", 0)), int(summary.get("requests_failed", 0))
    aggregate = {
        "requests": {"total": total, "failures": failed, **_given(lengths)},
        "latency": _given(latency),
        "throughput": _given(throughput),
    }
    observed = {
        name: _mean(summary.get(mean), unit, summary.get(most)) for name, (mean, most, unit) in OBSERVED.items()
    }
    seen = [{"component_label": "engine", "aggregate": _given(observed)}] if _given(observed) else []
    return {
        "version": VERSION,
        "run": {"uid": point["key"], "time": _time(point), "description": f"memgap point {point['key']}"},
        "scenario": {"stack": [_engine(point)], "load": _load(record, lengths)},
        "results": {"request_performance": {"aggregate": aggregate}, "observability": {"components": seen}},
    }


def _mean(value: float | None, units: str, most: float | None = None) -> dict[str, Any] | None:
    if value is None or not math.isfinite(value):
        return None
    return {"units": units, "mean": value, **({"max": most} if most is not None else {})}


def _latency(summary: Mapping[str, float], metric: str) -> dict[str, Any] | None:
    found = _mean(summary.get(f"{metric}_mean_ms"), "ms/token" if metric in PER_TOKEN else "ms")
    if found is None:
        return None
    others = {theirs: summary.get(f"{metric}_{ours}_ms") for theirs, ours in STATISTICS.items()}
    return found | _given(others)


def _given(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if value is not None}


def _time(point: Mapping[str, Any]) -> dict[str, str]:
    """Return when the point was measured: what is stored is the end of its window."""
    end, seconds = point["provenance"]["date_utc"], float(point["summary"].get("duration_s", 0.0))
    start = datetime.fromisoformat(end) - timedelta(seconds=seconds)
    begun = start.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"start": begun, "end": end, "duration": f"PT{seconds:.3f}S"}


def _engine(point: Mapping[str, Any]) -> dict[str, Any]:
    record, hardware = point["record"], point["hardware"]
    flags, server = GivenFlags.of(record), record["server"]
    sizes = {"tp": "tensor_parallel", "pp": "pipeline_parallel", "dp": "data_parallel"}
    gpus = flags.gpus if hardware.get("device") == "cuda" else 0
    return {
        "metadata": {"label": "engine", "cfg_id": content_key({"server": server, "engine": record["engine"]})},
        "standardized": {
            "kind": "inference_engine",
            "tool": record["engine"]["package"],
            "tool_version": record["engine"]["version"],
            "role": "replica",
            "replicas": server.get("replicas", 1),
            "model": {"name": record["model"]["name"]},
            "accelerator": {
                "model": hardware.get("gpu_name") or "CPU",
                "count": gpus,
                "parallelism": {short: flags.whole(meaning, 1) for short, meaning in sizes.items()},
            },
        },
        "native": {"args": server["args"], "envars": server["env"]},
    }


def _load(record: Mapping[str, Any], lengths: Mapping[str, Any]) -> dict[str, Any]:
    load, dataset = record["load"], record["dataset"]
    means = {side: (lengths[f"{side}_length"] or {"mean": 0.0})["mean"] for side in ("input", "output")}
    rate, held = load.get("rate_req_s"), load.get("concurrency")
    offered = {"rate_qps": rate} if rate is not None else {"concurrency": held or record["batch_cap"]}
    return {
        "metadata": {"cfg_id": content_key({"load": load, "dataset": dataset["key"]})},
        "standardized": {
            "tool": "memgap",
            "tool_version": __version__,
            "source": "random" if dataset.get("kind") in ("random", "sharegpt-like") else "sampled",
            "input_seq_len": {"distribution": "other", "value": means["input"]},
            "output_seq_len": {"distribution": "other", "value": means["output"]},
            **offered,
        },
        "native": {"config": {"load": load, "dataset": dataset}},
    }
