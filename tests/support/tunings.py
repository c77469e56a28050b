"""Made-up tunings for the tests."""

from copy import deepcopy
from typing import Any

from memgap.points.point import Record
from memgap.workflow import load_study

CONFIG: dict[str, Any] = {
    "engines": {"mock": {"adapter": "mock", "startup_timeout_s": 600}},
    "models": {"tiny-opt": {"weights": "synthetic", "dtype": "bfloat16"}},
    "datasets": {"short": {"kind": "random", "requests": 32, "prompt_tokens": 12, "output_tokens": 8}},
    "tuning": {
        "toy": {
            "fixed": {
                "model": "tiny-opt",
                "dataset": "short",
                "batch_cap": 4,
                "server": {"step-base-ms": 20.0},
                "load": {"requests": 8, "warmup_requests": 1},
            },
            "tiers": {
                "speed": {"experiments": {"step": {"server": {"step-base-ms": [2.0, 19.0]}}}},
                "memory": {"experiments": {"blocks": {"server": {"block-size": [32]}}}},
            },
            "blocks": {"least": 3, "most": 3},
            "screen_fraction": None,
        }
    },
    "collectors": {"interval_s": 0.05},
    "resources": {"gpus": 0},
}


def tuning_config(fixed: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """Return the configuration of a tuning on the simulated engine; `changes` replace its settings."""
    config = deepcopy(CONFIG)
    toy = config["tuning"]["toy"]
    toy.update(changes)
    toy["fixed"].update(fixed or {})
    return config


def tuning_plan(config: dict[str, Any] | None = None, **changes: Any) -> Record:
    """Return the plan of the only tuning of a configuration."""
    (plan,) = load_study(config or tuning_config(**changes)).tunings.values()
    return plan
