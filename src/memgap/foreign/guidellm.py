"""GuideLLM's JSON report (0.8): each of its benchmarks is a run, of its successful requests."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from memgap.foreign.result import Foreign, numbers, statistics

TOOL = "GuideLLM"
LATENCIES = {
    "ttft": ("time_to_first_token_ms", 1.0),
    "itl": ("inter_token_latency_ms", 1.0),
    "e2e": ("request_latency", 1e3),
    # its time per output token is over all tokens, the first included
    "normalized_latency": ("time_per_output_token_ms", 1.0),
}
STATISTICS = {
    "mean": "mean",
    "median": "median",
    "std": "std_dev",
    "p90": "p90",
    "p95": "p95",
    "p99": "p99",
    "p999": "p999",
}
FEW = ("mean", "median", "p99")
THROUGHPUTS = {
    "request_throughput_req_s": "requests_per_second",
    "output_throughput_tok_s": "output_tokens_per_second",
    "total_throughput_tok_s": "tokens_per_second",
}


def read(documents: Sequence[Any], path: Path) -> list[Foreign] | None:
    """Return the runs of a report, None where it is of another format."""
    if (
        len(documents) != 1
        or not isinstance(documents[0], Mapping)
        or "guidellm_version" not in documents[0].get("metadata", {})
    ):
        return None
    (report,) = documents
    model = str(report["config"]["spec"]["backend"]["model"])
    return [_run(one, model, report["metadata"]["guidellm_version"]) for one in report["benchmarks"]]


def _run(one: Mapping[str, Any], model: str, version: str) -> Foreign:
    metrics, totals = one["metrics"], one["metrics"]["request_totals"]
    values = numbers({"duration_s": one["duration"], "requests_completed": totals["successful"]})
    values |= {
        "requests_failed": float(totals["errored"] + totals["incomplete"]),
        "requests_sent": float(totals["total"]),
    }
    for ours, theirs in THROUGHPUTS.items():
        values |= numbers({ours: metrics[theirs]["successful"]["mean"]})
    for ours, theirs in (("prompt_tokens", "prompt_token_count"), ("output_tokens", "output_token_count")):
        values |= numbers({ours: metrics[theirs]["successful"]["total_sum"]})
    for metric, (theirs, factor) in LATENCIES.items():
        found = metrics[theirs]["successful"]
        kept = {ours: name for ours, name in STATISTICS.items() if metric != "normalized_latency" or ours in FEW}
        values |= statistics(metric, {**(found["percentiles"] or {}), **found}, kept, factor)
    strategy = one["config"]["strategy"]
    start = datetime.fromtimestamp(one["start_time"], UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return Foreign(TOOL, version, model, values, strategy.get("streams"), strategy.get("rate"), start)
