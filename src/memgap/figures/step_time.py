"""The wall time of a decode step in its parts: what the GPU reads and computes, where it waits, what the host does.

GPU time inside the step comes from kernel classes of a profiled run of the same batch, brought to the unprofiled step:
what of the time from first launch to sampled tokens no kernel fills is launch gaps. Host parts are the worker's own
clocks. The residual is what is left of the wall time; it is negative where parts ran at the same time.
"""

import pandas as pd

from memgap.figures.class_shares import ATTENTION, class_ms, class_steps
from memgap.figures.offline_points import SETTING, main_setting, unprofiled
from memgap.tables.offline_study import OfflineTables

GPU_PARTS = {
    "weight_reads": "weight reads (matrix products)",
    "kv_reads": "KV reads and writes (attention)",
    "other_kernels": "other kernels",
    "sampling": "sampling kernels",
    "launch_gaps": "launch gaps",
    "gpu_unprofiled": "forward pass, not profiled",
}
HOST_PARTS = {
    "prepare": "input preparation",
    "scheduler": "scheduler",
    "detokenizing": "detokenising",
    "output": "tokens to the host, output handling",
    "residual": "residual",
}
PARTS = {**GPU_PARTS, **HOST_PARTS}
VARIANT = ("async_scheduling", "detokenize")
COLUMNS = ["model", "batch", *VARIANT, "part", "ms", "share_fraction", "wall_ms", "repeats", "profiler"]
_SEGMENTS = ["schedule_ms", "prepare_ms", "gpu_ms", "fetch_ms", "update_ms", "detokenize_ms", "output_ms"]


def step_parts(tables: OfflineTables) -> pd.DataFrame:
    """Return one row a model, batch, variant and part with the columns of `COLUMNS`; ms sum to the wall time.

    A variant is whether scheduling was asynchronous and whether text was made of tokens in the engine's process.
    """
    fixed = tuple(column for column in SETTING if column not in VARIANT)
    points = main_setting(unprofiled(tables).dropna(subset=["wall_ms", *_SEGMENTS]), fixed)
    points = points.assign(**{column: points[column].fillna("") for column in VARIANT})
    profiled = {
        (str(model), float(str(batch))): (class_ms(own), str(own["profiler"].iloc[0]))
        for (model, batch), own in class_steps(tables.classes).groupby(["model", "batch"], sort=False)
    }
    rows = []
    for (model, batch, *variant), own in points.groupby(["model", "batch", *VARIANT], sort=False):
        means = own[["wall_ms", *_SEGMENTS]].mean()
        kernels, profiler = profiled.get((str(model), float(str(batch))), ({}, ""))
        parts = {**_gpu_parts(float(means["gpu_ms"]), kernels), **_host_parts(means)}
        parts["residual"] = float(means["wall_ms"]) - sum(parts.values())
        wall = float(means["wall_ms"])
        head = {"model": model, "batch": batch, **dict(zip(VARIANT, variant, strict=True)), "wall_ms": wall}
        for part, ms in parts.items():
            shared = {"repeats": len(own), "profiler": profiler}
            rows.append({**head, "part": part, "ms": ms, "share_fraction": ms / wall, **shared})
    return _ordered(pd.DataFrame(rows, columns=COLUMNS), tables.models)


def residuals(data: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the residual, the largest share of the wall time (of either sign) first."""
    own = data[data["part"] == "residual"]
    return own.loc[own["share_fraction"].abs().sort_values(ascending=False).index]


def _gpu_parts(gpu_ms: float, kernels: dict[str, float]) -> dict[str, float]:
    if not kernels:
        return {"gpu_unprofiled": gpu_ms}
    attention = sum(kernels.get(kind, 0.0) for kind in ATTENTION)
    matmul, sampling = kernels.get("matmul", 0.0), kernels.get("sampling", 0.0)
    busy = sum(kernels.values())
    return {
        "weight_reads": matmul,
        "kv_reads": attention,
        "other_kernels": busy - attention - matmul - sampling,
        "sampling": sampling,
        "launch_gaps": max(gpu_ms - busy, 0.0),
    }


def _host_parts(means: "pd.Series[float]") -> dict[str, float]:
    return {
        "prepare": float(means["prepare_ms"]),
        "scheduler": float(means["schedule_ms"] + means["update_ms"]),
        "detokenizing": float(means["detokenize_ms"]),
        "output": float(means["fetch_ms"] + means["output_ms"]),
    }


def _ordered(data: pd.DataFrame, models: list[str]) -> pd.DataFrame:
    orders = {
        "model": {model: place for place, model in enumerate(models)},
        "part": {part: place for place, part in enumerate(PARTS)},
    }
    return data.sort_values(
        ["model", "batch", "detokenize", "async_scheduling", "part"],
        key=lambda column: column.map(orders[str(column.name)]) if column.name in orders else column,
        kind="stable",
        ignore_index=True,
    )
