"""A load test on the real engine: Locust and the load generator against one vLLM on this machine."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from memgap.engine.identity import engine_record
from memgap.kinds.locust.comparison import comparison_table, definitions_table
from memgap.kinds.locust.tables import points_table, timeline_table
from memgap.study.plan import plan_of
from tests.support.loadtests import measure, needs_locust

CONFIG: dict[str, Any] = {
    "engines": {"vllm": {"adapter": "vllm"}},
    "models": {"tiny-opt": {"weights": "synthetic", "dtype": "bfloat16"}},
    "datasets": {"short": {"kind": "random", "requests": 4, "prompt_tokens": 192, "output_tokens": 16}},
    "loadtests": {
        "asking": {
            "fixed": {
                "model": "tiny-opt",
                "dataset": "short",
                "users": 2,
                "output_tokens": 12,
                "requests_per_user": 4,
                "warmup_requests": 1,
                "server": {
                    "max-model-len": 512,
                    "enable-prefix-caching": True,
                    "kv-cache-memory-bytes": 67108864,
                    "enforce-eager": True,  # compiling takes minutes where other tests run beside it
                },
            },
            "experiments": {"completions": {}, "chat": {"endpoint": "chat", "compare": False}},
        }
    },
    "collectors": {"interval_s": 0.1},
}

pytestmark = [
    pytest.mark.engine,
    needs_locust,
    pytest.mark.skipif(
        engine_record("vllm", {"adapter": "vllm", "version": "auto", "image": None})["version"] == "not-installed",
        reason="vLLM is not installed in .venv-engine: `make install`",
    ),
]


def test_either_client_measures_a_real_server_and_the_engine_counts_its_prefix_hits(tmp_path: Path) -> None:
    study = measure(CONFIG, tmp_path)
    plan = plan_of(study, "group", "asking")
    points = points_table(plan, tmp_path / "points")
    assert points["status"].tolist() == ["ok"] * 3
    assert (points["requests_completed"] == 8).all() and (points["output_tokens"] == 96).all()
    assert (points["server_ttft_mean_ms"] < points["ttft_mean_ms"]).all()
    assert (points["ttft_mean_ms"] < points["e2e_mean_ms"]).all()
    assert points["server_rss_max_bytes"].min() > 1e8
    pair = points[points["experiment"].str.startswith("completions")]
    assert pair["prefix_hit_fraction"].between(0.2, 1.0).all()
    assert pair["prefix_hit_fraction"].nunique() == 1
    found = comparison_table(points)
    assert (found[found["group"] == "same load"]["difference"].dropna() == 0).all()
    told = definitions_table(plan, tmp_path / "points").set_index("quantity")
    uncorrected = told.loc["response time where the Locust file does not correct it, mean, ms"]
    assert isinstance(uncorrected, pd.DataFrame) and (uncorrected["locust_says"] < uncorrected["otherwise"]).all()
    assert timeline_table(plan, tmp_path / "points")["prefix_hit_fraction"].max() > 0.5
