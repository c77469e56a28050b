"""Configurations of offline studies."""

from typing import Any

SYNCHRONOUS = {"max-model-len": 64, "async-scheduling": False}


def config(experiments: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """Return a configuration with one offline study; `changes` go into its fixed arguments, None removes one."""
    fixed: dict[str, Any] = {"model": "tiny-opt", "batch": [1, 4], "prompt_tokens": 16, "output_tokens": 8}
    study: dict[str, Any] = {
        "fixed": {name: value for name, value in {**fixed, **changes}.items() if value is not None}
    }
    if experiments is not None:
        study["experiments"] = experiments
    return {
        "engines": {"vllm": {"adapter": "vllm", "version": "0.26.0"}},
        "models": {"tiny-opt": {"weights": "synthetic", "dtype": "bfloat16"}},
        "datasets": {"short": {"kind": "random", "requests": 32, "prompt_tokens": 12, "output_tokens": 8}},
        "sweeps": {
            "online": {"fixed": {"model": "tiny-opt", "dataset": "short", "batch_cap": 1, "load": {"requests": 4}}}
        },
        "offline": {"phases": study},
    }
