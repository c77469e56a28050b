"""inference-perf's `stage_N_lifecycle_metrics.json` (0.7), a stage a file; its `config.yaml` beside names the model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from memgap.errors import DAMAGE
from memgap.foreign.result import Foreign, numbers, statistics
from memgap.own_yaml import own_yaml

TOOL = "inference-perf"
LATENCIES = {
    "ttft": "time_to_first_token",
    "tpot": "time_per_output_token",
    "itl": "inter_token_latency",
    "e2e": "request_latency",
}
STATISTICS = {"mean": "mean", "median": "median", "p90": "p90", "p95": "p95", "p99": "p99", "p999": "p99.9"}
THROUGHPUTS = {
    "request_throughput_req_s": "requests_per_sec",
    "output_throughput_tok_s": "output_tokens_per_sec",
    "total_throughput_tok_s": "total_tokens_per_sec",
}


def read(documents: Sequence[Any], path: Path) -> list[Foreign] | None:
    """Return the run of a stage, None where it is of another format."""
    if (
        len(documents) != 1
        or not isinstance(documents[0], Mapping)
        or not {"load_summary", "successes"} <= documents[0].keys()
    ):
        return None
    (stage,) = documents
    load, good, bad = stage["load_summary"], stage["successes"], stage["failures"]
    counts = {"requests_sent": load["count"], "requests_completed": good["count"], "requests_failed": bad["count"]}
    tokens = {f"{what}_tokens": good.get(f"{what}_tokens", {}).get("total") for what in ("prompt", "output")}
    rates = {ours: good["throughput"].get(theirs) for ours, theirs in THROUGHPUTS.items()}
    values = numbers({"duration_s": stage.get("benchmark_time_seconds"), **counts, **tokens, **rates})
    for metric, theirs in LATENCIES.items():
        values |= statistics(metric, good["latency"].get(theirs) or {}, STATISTICS, 1e3)
    model, concurrency = _configured(path)
    return [Foreign(TOOL, None, model, values, concurrency, load.get("requested_rate"))]


def _configured(path: Path) -> tuple[str, int | None]:
    try:
        config = own_yaml((path.parent / "config.yaml").read_text(encoding="utf-8"))  # written by the tool itself
        stages = config["load"]["stages"]
        number = path.name.split("_")[1]
        held = stages[int(number)].get("concurrency_level") if number.isdigit() else None
        return str(config["server"]["model_name"]), held
    except (*DAMAGE, yaml.YAMLError):
        return "model not named", None
