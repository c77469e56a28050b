"""`sglang.bench_serving --output-file`: JSON lines, a run a line."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memgap.foreign.result import Foreign, numbers, statistics

TOOL = "sglang bench"
LATENCIES = {"ttft": "ttft", "tpot": "tpot", "itl": "itl", "e2e": "e2e_latency"}
COUNTS = {
    "duration_s": "duration",
    "requests_completed": "completed",
    "prompt_tokens": "total_input_tokens",
    "output_tokens": "total_output_tokens",
    "request_throughput_req_s": "request_throughput",
    "output_throughput_tok_s": "output_throughput",
    "total_throughput_tok_s": "total_throughput",
}


def read(documents: Sequence[Any], path: Path) -> list[Foreign] | None:
    """Return the runs of a file, None where it is of another format."""
    key = "total_output_tokens_retokenized"
    if not all(isinstance(one, Mapping) and key in one for one in documents):
        return None
    return [_run(one) for one in documents]


def _run(one: Mapping[str, Any]) -> Foreign:
    values = numbers({ours: one.get(theirs) for ours, theirs in COUNTS.items()})
    for metric, theirs in LATENCIES.items():
        names = {ours: f"{ours}_{theirs}_ms" for ours in ("mean", "median", "std", "p90", "p95", "p99")}
        values |= statistics(metric, one, names)
    info = one.get("server_info") or {}
    model = info.get("served_model_name") or info.get("model_path") or "model not named"
    rate = numbers({"rate": one.get("request_rate")}).get("rate")
    offered = rate if rate is not None and rate < float("inf") else None
    return Foreign(TOOL, info.get("version"), str(model), values, one.get("max_concurrency"), offered)
