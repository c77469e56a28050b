"""A small study of two models and GPUs for the page to explore, and the advisor's own numbers for it."""

import json
import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

from memgap.advisor.bca import advise
from memgap.advisor.memory import MemoryNeed
from memgap.advisor.report import memory_at, profile_of
from memgap.advisor.stability import stability
from memgap.config.load import check_config
from memgap.tables.fate import GOOD, fate
from memgap.tables.inputs import Inputs
from memgap.tables.points import as_table
from tests.support.records import small_config

PRICES = {"H200": 3.5}
CAPS = (1, 2, 4, 8, 16, 32, 64, 128)
Numbers = Mapping[str, Any]


def settings(**changes: Any) -> dict[str, Any]:
    """Return the plan of the page."""
    advisor: dict[str, Any] = check_config(small_config())["advisor"]
    return {**advisor, "usd_per_gpu_hour": PRICES, "adapters": {}, **changes}


def table(model: str = "big", gpu_name: str = "NVIDIA H200", speed: float = 1.0) -> pd.DataFrame:
    """Return three repeats at each cap that bend at about 32, with preemptions at 128, and one at 256 that failed."""
    rows = []
    for number, cap in enumerate(CAPS):
        for repeat, noise in enumerate((0.99, 1.0, 1.013)):
            rate = speed * noise * 900 * cap / (1 + cap / 24)
            rows.append(
                {
                    "sweep": "s",
                    "model": model,
                    "status": "ok",
                    "flags": "preempted" if cap == 128 else "",
                    "device": "cuda",
                    "gpu_name": gpu_name,
                    "engine": "vllm",
                    "gpus": 1,
                    "replicas": 1,
                    "server_args": '{"max-model-len":2048}',
                    "verdict": "valid",
                    "repeat": repeat,
                    "key": f"{model}{number}{repeat}",
                    "batch_cap": cap,
                    "total_throughput_tok_s": rate,
                    "output_throughput_tok_s": rate / 3,
                    "itl_mean_ms": (8 + cap / 7) / noise / speed,
                    "ttft_mean_ms": 20.0 + cap + repeat,
                    "kv_cache_usage_max_fraction": min(1.0, cap / 100),
                    "kv_pool_bytes": 1e11,
                    "weights_bytes": 1.4e10,
                    "gpu_memory_bytes": 1.4e11,
                    "gpu_memory_utilization": 0.9,
                    "kv_block_tokens": 16,
                    "kv_bytes_per_token": 524288.0,
                    "max_model_len": 2048,
                }
            )
    measured = {"total_throughput_tok_s", "output_throughput_tok_s", "itl_mean_ms", "ttft_mean_ms", "verdict"}
    failed = {name: value for name, value in rows[0].items() if name not in measured | {"kv_cache_usage_max_fraction"}}
    failed |= {"batch_cap": 256, "key": "k", "status": "oom", "error_message": "</script><b>out of memory</b>"}
    return as_table([*rows, failed])


def inputs(**changes: Any) -> Inputs:
    """Return what the page of that study is made from."""
    found = pd.concat([table(), table("small", speed=2.1)], ignore_index=True)
    return Inputs({"sweep.points": found, "others.points": [table("other", "NVIDIA A10")]}, plan=settings(**changes))


def numbers_in(page: str) -> Numbers:
    """Return the numbers that a page computes with."""
    (text,) = re.findall(r'<script type="application/json" id="numbers">(.*?)</script>', page, re.DOTALL)
    found: Numbers = json.loads(text)
    return found


def advised(points: pd.DataFrame, slo: Mapping[str, Any], latency: str = "itl_mean_ms") -> dict[str, Any]:
    """Return the advisor's answer at a bound: sentence, B_opt, memory, how sure, and USD per million output tokens."""
    plan = settings(latency=latency)
    profile = profile_of(points, latency)
    decision = advise(profile, slo, plan["epsilon"])
    at = points[(points["batch_cap"] == decision.b_opt) & (fate(points) == GOOD)] if decision.b_opt else None
    need: MemoryNeed | None = None if at is None else memory_at(at, plan)
    return {
        "b_opt": decision.b_opt,
        "slo_ms": decision.slo_ms,
        "sentence": decision.sentence,
        "reasons": [one.reason for one in decision.candidates],
        "memory": need,
        "usd": None if at is None else 3.5 / 3600 / at["output_throughput_tok_s"].mean() * 1e6,
        "same_fraction": stability(profile, slo, plan["epsilon"]).same_fraction,
    }
