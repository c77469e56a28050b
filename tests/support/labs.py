"""Made-up labs for the tests."""

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from memgap.labs.points import Cell, all_cells, capacity_cells
from memgap.points.point import Record
from memgap.store.points import PointStore
from memgap.workflow import load_study
from tests.support.records import store_point

CONFIG: dict[str, Any] = {
    "engines": {"mock": {"adapter": "mock", "startup_timeout_s": 600}},
    "models": {"tiny-opt": {"weights": "synthetic", "dtype": "bfloat16"}},
    "datasets": {
        "short": {"kind": "random", "requests": 32, "prompt_tokens": 12, "output_tokens": 8},
        "long": {"kind": "random", "requests": 32, "prompt_tokens": 24, "output_tokens": 8},
        "shared": {
            "kind": "shared-prefix",
            "requests": 32,
            "prefixes": 2,
            "prefix_tokens": 100,
            "prompt_tokens": 28,
            "output_tokens": 8,
        },
    },
    "labs": {
        "01": {
            "question": "Is a slow step slow?",
            "fixed": {
                "model": "tiny-opt",
                "dataset": "short",
                "batch_cap": 4,
                "cap_side": "server",
                "server": {"step-base-ms": 4.0},
                "load": {"requests": 8, "warmup_requests": 1},
            },
            "arms": {"slow": {}, "fast": {"server": {"step-base-ms": 2.0}}},
            "blocks": 3,
            "aa": False,
        }
    },
    "collectors": {"interval_s": 0.05},
    "resources": {"gpus": 0},
}


def lab_config(**changes: Any) -> dict[str, Any]:
    """Return the configuration of a lab on the simulated engine; `changes` replace its settings."""
    config = deepcopy(CONFIG)
    config["labs"]["01"].update(changes)
    return config


def lab_plan(**changes: Any) -> Record:
    """Return the plan of that lab."""
    (plan,) = load_study(lab_config(**changes)).labs.values()
    return plan


def store_cells(
    plan: Mapping[str, Any],
    points: Path,
    summary: Callable[[Cell], Mapping[str, float]],
    cells: Iterable[Cell] | None = None,
    **changes: Any,
) -> None:
    """Write made-up points of a lab into a store, capacities first; `changes` replace parts of point.json."""
    judged = {"verdict": {"verdict": "valid", "limit": "engine", "reasons": []}, **changes}
    for cell in capacity_cells(plan) if cells is None else ():
        store_point(points, cell.point.record, summary(cell), **judged)
    for cell in all_cells(plan, PointStore(points)) if cells is None else cells:
        store_point(points, cell.point.record, summary(cell), **judged)
