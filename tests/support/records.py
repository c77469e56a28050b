"""Made-up configurations, points and tables for the tests."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memgap.canonical import content_key
from memgap.store.points import SCHEMA, PointStore
from memgap.study.study import Study
from memgap.workflow import load_study


def small_config(**changes: Any) -> dict[str, Any]:
    """Return a configuration of three caps on the simulated engine; `changes` go into the sweep's fixed arguments."""
    fixed: dict[str, Any] = {
        "engine": "mock",
        "model": "tiny-opt",
        "dataset": "short",
        "batch_cap": [1, 2, 4],
        "server": {"step-base-ms": 1.0},
        "load": {"requests": 6, "warmup_requests": 1},
    }
    return {
        "engines": {"mock": {"adapter": "mock", "startup_timeout_s": 600}},
        "models": {"tiny-opt": {"weights": "synthetic", "dtype": "bfloat16"}},
        "datasets": {"short": {"kind": "random", "requests": 32, "prompt_tokens": 12, "output_tokens": 8}},
        "sweeps": {"small": {"fixed": {**fixed, **changes}}},
        "collectors": {"interval_s": 0.05},
    }


def small_study(**changes: Any) -> Study:
    """Return the expanded configuration."""
    return load_study(small_config(**changes))


def store_point(
    points: Path,
    record: Mapping[str, Any],
    summary: Mapping[str, float] | None,
    status: str = "ok",
    flags: list[str] | None = None,
    **changes: Any,
) -> str:
    """Write a point of `record` into a store; returns its key. `changes` replace parts of point.json."""
    key = content_key(record)
    error = None if status == "ok" else {"kind": status, "message": f"it was {status}", "log_tail": "the end"}
    point = {
        "schema": SCHEMA,
        "key": key,
        "record": record,
        "status": status,
        "flags": flags or [],
        "error": error,
        "summary": dict(summary or {}),
        "engine": {
            "kv_pool_bytes": 1000.0,
            "kv_pool_tokens": 100,
            "kv_block_tokens": 16,
            "weights_bytes": 500,
            "gpu_memory_utilization": 0.9,
            "max_model_len": 64,
            "start_s": 30.0,
        },
        "hardware": {
            "device": "cuda",
            "gpu_name": "TEST GPU",
            "driver": "1.0",
            "gpu_memory_bytes": 2000,
            "host_memory_bytes": 4000,
        },
        "client": {"loop_lag_p99_ms": 1.0, "cpu_fraction": 0.1, "coalesced_fraction": 0.0},
        "provenance": {"date_utc": "2026-01-02T03:04:05Z", "commands": []},
        "window": {"duration_s": 10.0, "start_unix_s": 0.0, "end_unix_s": 10.0},
        **changes,
    }
    PointStore(points).write(key, point, {})
    return key
