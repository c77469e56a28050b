"""AIPerf's `profile_export_aiperf.json` (0.13)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memgap.foreign.result import Foreign, numbers, statistics

TOOL = "AIPerf"
LATENCIES = {
    "ttft": "time_to_first_token",
    "tpot": "inter_token_latency",  # a request's mean, which we call TPOT
    "e2e": "request_latency",
    "itl_chunk": "inter_chunk_latency",
}
STATISTICS = {"mean": "avg", "median": "p50", "std": "std", "p90": "p90", "p95": "p95", "p99": "p99"}
FEW = ("mean", "median", "p99")
COUNTS = {
    "duration_s": ("benchmark_duration", "avg"),
    "requests_completed": ("request_count", "avg"),
    "requests_failed": ("error_request_count", "avg"),
    "prompt_tokens": ("total_isl", "avg"),
    "output_tokens": ("total_output_tokens", "avg"),
    "request_throughput_req_s": ("request_throughput", "avg"),
    "output_throughput_tok_s": ("output_token_throughput", "avg"),
    "total_throughput_tok_s": ("total_token_throughput", "avg"),
}


def read(documents: Sequence[Any], path: Path) -> list[Foreign] | None:
    """Return the run of an export, None where it is of another format."""
    if len(documents) != 1 or not isinstance(documents[0], Mapping) or "aiperf_version" not in documents[0]:
        return None
    (export,) = documents
    values = numbers({ours: export.get(name, {}).get(part) for ours, (name, part) in COUNTS.items()})
    for metric, theirs in LATENCIES.items():
        kept = {ours: name for ours, name in STATISTICS.items() if metric != "itl_chunk" or ours in FEW}
        values |= statistics(metric, export.get(theirs, {}), kept)
    if "requests_completed" in values:
        values["requests_sent"] = values["requests_completed"] + values.get("requests_failed", 0.0)
    asked = export["input_config"]
    phase: Mapping[str, Any] = next((one for one in asked["phases"] if one.get("kind") == "profiling"), {})
    rate = phase.get("rate", phase.get("request_rate"))
    model = str(asked["models"]["items"][0]["name"])
    return [Foreign(TOOL, export["aiperf_version"], model, values, phase.get("concurrency"), rate)]
