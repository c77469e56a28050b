"""`vllm bench serve --save-result`: read and written. All values are of the whole window."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memgap.foreign.result import Foreign, numbers, statistics

TOOL = "vllm bench serve"
LATENCIES = {"ttft": "ttft", "tpot": "tpot", "itl": "itl", "e2e": "e2el"}
COUNTS = {
    "duration_s": "duration",
    "requests_completed": "completed",
    "requests_failed": "failed",
    "prompt_tokens": "total_input_tokens",
    "output_tokens": "total_output_tokens",
    "request_throughput_req_s": "request_throughput",
    "output_throughput_tok_s": "output_throughput",
    "total_throughput_tok_s": "total_token_throughput",
}


def names_of(theirs: str) -> dict[str, str]:
    """Return the tool's keys of a latency's statistics by ours."""
    plain = {one: f"{one}_{theirs}_ms" for one in ("mean", "median", "std", "p90", "p95", "p99")}
    return {**plain, "p999": f"p99.9_{theirs}_ms"}


def read(documents: Sequence[Any], path: Path) -> list[Foreign] | None:
    """Return the runs of a file, None where it is of another format."""
    if not all(isinstance(one, Mapping) and {"total_token_throughput", "model_id"} <= one.keys() for one in documents):
        return None
    return [_run(one) for one in documents]


def _run(one: Mapping[str, Any]) -> Foreign:
    values = numbers({ours: one.get(theirs) for ours, theirs in COUNTS.items()})
    for metric, theirs in LATENCIES.items():
        values |= statistics(metric, one, names_of(theirs))
    if "requests_completed" in values:
        values["requests_sent"] = values["requests_completed"] + values.get("requests_failed", 0.0)
    rate, day = numbers({"rate": one.get("request_rate")}).get("rate"), str(one.get("date", ""))
    date = f"{day[:4]}-{day[4:6]}-{day[6:8]}" if day[:8].isdigit() else None
    return Foreign(TOOL, None, str(one["model_id"]), values, one.get("max_concurrency"), rate, date)


def write(point: Mapping[str, Any], requests: Any = None) -> dict[str, Any]:
    """Return a point as `vllm bench serve` would have saved it; what was not measured is left out."""
    summary, record = point["summary"], point["record"]
    load = record["load"]
    named = {theirs: summary[ours] for ours, theirs in COUNTS.items() if ours in summary}
    for metric, theirs in LATENCIES.items():
        ours = {key: summary.get(f"{metric}_{one}_ms") for one, key in names_of(theirs).items()}
        named |= {key: value for key, value in ours.items() if value is not None}
    counts = {name: int(named[name]) for name in ("completed", "failed", "total_input_tokens", "total_output_tokens")}
    date = point["provenance"]["date_utc"]
    return {
        "date": date[:19].replace("-", "").replace(":", "").replace("T", "-"),
        "endpoint_type": "openai",
        "backend": record["engine"]["adapter"],
        "label": None,
        "model_id": record["model"]["name"],
        "tokenizer_id": record["model"]["name"],
        "num_prompts": int(summary.get("requests_sent", load["requests"])),
        "request_rate": "inf" if load.get("rate_req_s") is None else load["rate_req_s"],
        "burstiness": load.get("burstiness", 1.0),
        "max_concurrency": load.get("concurrency"),
        **named,
        **counts,
    }
