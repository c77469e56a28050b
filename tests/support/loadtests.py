"""Load tests on the simulated engine for the tests, how they are measured, and whether Locust is there."""

import io
from pathlib import Path
from typing import Any

import pytest

from memgap.datasets import store_dataset
from memgap.kinds.locust.environment import installed_note
from memgap.models import write_synthetic_model
from memgap.session.progress import Progress
from memgap.session.run import Session
from memgap.session.watch import StopWatch
from memgap.study.study import Study
from memgap.workflow import load_study

needs_locust = pytest.mark.skipif(
    installed_note() is None, reason="NOT CHECKED HERE: Locust is not installed in .venv-locust: `make install-locust`"
)


def loadtest_config(server: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """Return a configuration of one small load test; `changes` go into its fixed arguments."""
    fixed: dict[str, Any] = {
        "engine": "mock",
        "model": "tiny-opt",
        "dataset": "short",
        "users": 2,
        "prompts": 2,
        "output_tokens": 6,
        "requests_per_user": 4,
        "warmup_requests": 1,
        "server": {"step-base-ms": 2.0, **(server or {})},
    }
    return {
        "engines": {"mock": {"adapter": "mock", "startup_timeout_s": 600}},
        "models": {"tiny-opt": {"weights": "synthetic", "dtype": "bfloat16"}},
        "datasets": {"short": {"kind": "random", "requests": 4, "prompt_tokens": 12, "output_tokens": 8}},
        "loadtests": {"asking": {"fixed": {**fixed, **changes}}},
        "collectors": {"interval_s": 0.05},
    }


def measure(config: dict[str, Any], folder: Path) -> Study:
    """Measure all points of a configuration below a folder."""
    study = load_study(config)
    for key, spec in study.datasets.items():
        store_dataset(folder / f"datasets/{key}.npz", spec)
    for name, model in study.model_folders.items():
        write_synthetic_model(model, folder / "models" / name)
    (session,) = study.sessions
    Session(study.session_plan(session), folder, Progress("test", io.StringIO()), StopWatch()).run()
    return study
