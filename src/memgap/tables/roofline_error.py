"""Measured steps beside the roofline's: how far a real engine is from what the model's shape and the GPU allow."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from memgap.declared.tables import TableSpec
from memgap.engine.ranks import Sizes
from memgap.engine.vllm import VllmAdapter
from memgap.errors import UserError
from memgap.models.architecture import ModelArchitecture
from memgap.roofline.gpus import Gpu, gpu_of_nvml
from memgap.roofline.predict import Setup, lower_bound_s, step_time_s
from memgap.roofline.work import Kernel, step_kernels, total
from memgap.tables.fate import FAILED, UNNEEDED, fate
from memgap.tables.inputs import Inputs
from memgap.tables.pages import study_page
from memgap.tables.provenance import provenance_line

REQUIRED = ("model", "batch", "context_tokens", "step_ms")
PREDICTED = (
    "predicted_ms",
    "lower_bound_ms",
    "measured_over_predicted",
    "measured_over_lower_bound",
    "intensity_flop_byte",
    "achieved_flop_s",
    "predicted_flop_s",
)
BATCH_RANGES = ((0.0, 8.0), (8.0, 64.0), (64.0, 256.0), (256.0, math.inf))
ALL = "all"
ONE, SEVERAL, WALL, GPU = "one", "several", "none, wall", "none, GPU"
"""How many servers a point ran on; an offline point runs on none, and its step has a wall time and a GPU time."""


TABLE = TableSpec(
    name="roofline_error",
    title="The roofline's prediction against every point of some sweeps",
    reads=("sweeps.points", "studies?.offline", "config.models"),
    writes={
        "csv": "results/tables/roofline_error.csv",
        "summary": "results/tables/roofline_error.summary.csv",
        "page": "results/tables/roofline_error.html",
    },
    shown=("csv", "page"),
    digits=6,
    caption="""
Measured step times by the predicted ones, over all points of the named sweeps. See docs/roofline.md.
""",
)


def make(inputs: Inputs) -> dict[str, pd.DataFrame | str]:
    """Return the error of every point, its summary, and the summary as a page."""
    table = pd.concat(inputs.all("sweeps.points"), ignore_index=True).drop_duplicates("key")
    points = [online_points(table), *(offline_points(one) for one in inputs.all("studies.offline"))]
    errors = compare_steps(pd.concat(points, ignore_index=True), inputs.architectures)
    summary = error_summary(errors)
    page = study_page("Measured step times by the roofline's prediction", summary, provenance_line(table))
    return {"csv": errors, "summary": summary, "page": page}


def compare_steps(
    points: pd.DataFrame, architectures: Mapping[str, ModelArchitecture], gpu: Gpu | None = None
) -> pd.DataFrame:
    """Return `points` with the columns of PREDICTED: what the roofline says of each step, and measured by it.

    `points` has model, batch (sequences that a server decodes in a step), context_tokens (mean length) and step_ms.
    Read where they are there: gpu_name (as NVML says; else `gpu`), dtype (float16), kv_dtype (dtype), gpus (1),
    quantization (a server's flag), replicas (1: that many servers take turns on the GPU, so a step of one waits for a
    step of each other), prefill_sequences (of those in `batch`, how many are taken in by a mean step; 0) and
    prompt_tokens (their mean length). A row without a known GPU or with a value missing has empty predictions. Raises
    UserError for a missing column and for a model without an architecture.
    """
    for column in REQUIRED:
        if column not in points.columns:
            raise UserError(f"steps to compare with the roofline: the column {column} is missing.")
    for model in points["model"].dropna().unique():
        if model not in architectures:
            raise UserError(f"steps to compare with the roofline: no architecture is known of the model {model!r}.")
    rows = [_predicted(dict(row), architectures, gpu) for row in points.to_dict("records")]
    columns = pd.DataFrame(rows, columns=list(PREDICTED), index=points.index).astype("float64")
    return pd.concat([points.drop(columns=[one for one in PREDICTED if one in points.columns]), columns], axis=1)


def _predicted(
    row: Mapping[Any, Any], architectures: Mapping[str, ModelArchitecture], gpu: Gpu | None
) -> dict[str, float]:
    gpu = gpu_of_nvml(_given(row, "gpu_name", None)) or gpu
    if gpu is None or any(pd.isna(row[column]) for column in REQUIRED):
        return {}
    setup = Setup(
        architectures[row["model"]].served_as(_given(row, "quantization", None)),
        gpu,
        str(_given(row, "dtype", "float16")),
        _given(row, "kv_dtype", None),
        int(_given(row, "gpus", 1)),
    )
    replicas, measured_s = float(_given(row, "replicas", 1)), row["step_ms"] / 1000
    kernels = point_kernels(setup, row)
    predicted_s, least_s = replicas * step_time_s(setup, kernels), replicas * lower_bound_s(setup, kernels)
    work = total(kernels)
    return {
        "predicted_ms": 1000 * predicted_s,
        "lower_bound_ms": 1000 * least_s,
        "measured_over_predicted": measured_s / predicted_s,
        "measured_over_lower_bound": measured_s / least_s,
        "intensity_flop_byte": work.intensity,
        "achieved_flop_s": replicas * work.flop / measured_s,
        "predicted_flop_s": replicas * work.flop / predicted_s,
    }


def point_kernels(setup: Setup, row: Mapping[Any, Any]) -> list[Kernel]:
    """Return the kernels of the mean step of a row as `compare_steps` takes it.

    Prompts are spread evenly over all steps, but not where tokens choose experts: two tokens more in every step would
    touch more experts than a whole prompt in every hundredth step does. There steps with a prompt and without are
    counted apart.
    """
    batch, prefills = float(row["batch"]), float(_given(row, "prefill_sequences", 0.0))
    if not (0 < prefills < 1 and any(one.experts for one in setup.architecture.decoder.blocks)):
        return _kernels(setup, row, batch, prefills)
    without, within = _kernels(setup, row, batch, 0.0), _kernels(setup, row, max(batch, 1.0), 1.0)
    return [*_share_of(without, 1 - prefills), *_share_of(within, prefills)]


def _kernels(setup: Setup, row: Mapping[Any, Any], batch: float, prefills: float) -> list[Kernel]:
    return step_kernels(
        setup.architecture,
        decode_sequences=max(batch - prefills, 0.0),
        context_tokens=float(row["context_tokens"]),
        prefill_sequences=prefills,
        prompt_tokens=float(_given(row, "prompt_tokens", 0.0)),
        dtype=setup.dtype,
        kv_dtype=setup.cache_dtype,
        parallel=setup.split,
    )


def _share_of(kernels: list[Kernel], share: float) -> list[Kernel]:
    return [replace(one, count=share * one.count) for one in kernels]


def _given(row: Mapping[Any, Any], column: str, default: Any) -> Any:
    value = row.get(column)
    return default if value is None or pd.isna(value) else value


def online_points(table: pd.DataFrame) -> pd.DataFrame:
    """Return the measured points of a sweep's table as `compare_steps` takes them, each key once.

    batch = mean running requests of an engine; step = running / output rate, since a step makes a token for each
    running request; mean context = KV cache in use / running, both over the whole window, less half a block that is
    not yet filled; in each step batch x requests / output tokens prompts are taken in.
    """
    fates = fate(table)
    kept = table.assign(fate=fates)[~fates.isin([FAILED, UNNEEDED])].drop_duplicates("key")
    replicas = kept["replicas"].fillna(1).astype(float)
    used_tokens = kept["kv_cache_usage_mean_fraction"] * kept["kv_pool_tokens"]
    arguments = [json.loads(text) if isinstance(text, str) else {} for text in kept["server_args"]]
    spread = [Sizes.of(VllmAdapter.flags, one) for one in arguments]
    engines = [one.engines for one in spread]
    batch = kept["mean_running_reqs"] / replicas / engines
    over_window = kept["window_mean_running_reqs"].fillna(kept["mean_running_reqs"]) / replicas
    points = pd.DataFrame(
        {
            **{name: kept[name] for name in ("sweep", "experiment", "key", "model", "batch_cap", "repeat", "mps")},
            **{name: kept[name] for name in ("dataset", "fate", "source", "gpu_name", "dtype")},
            "kv_dtype": [_cache_dtype(one) for one in arguments],
            "quantization": [one.get(str(VllmAdapter.flags.quantization)) for one in arguments],
            "gpus": [one.tensor for one in spread],
            "replicas": replicas,
            "batch": batch,
            "context_tokens": used_tokens / over_window - (kept["kv_block_tokens"].fillna(1) - 1) / 2,
            "prefill_sequences": batch * kept["requests_completed"] / kept["output_tokens"],
            "prompt_tokens": kept["prompt_tokens"] / kept["requests_completed"],
            "step_ms": 1000 * kept["mean_running_reqs"] / kept["output_throughput_tok_s"],
        }
    )
    complete = points[["batch", "context_tokens", "prefill_sequences", "prompt_tokens", "step_ms"]]
    known = complete.notna().all(axis=1) & (complete > 0).all(axis=1)
    return points[known].reset_index(drop=True)


def offline_points(table: pd.DataFrame) -> pd.DataFrame:
    """Return an offline study's unprofiled points as `compare_steps` takes them, each twice: with a decode step's wall
    time (`servers` is "none, wall") and with what the GPU took of it ("none, GPU").
    """
    kept = table[(table["status"] == "ok") & (table["profiler"] == "none")].drop_duplicates("key")
    shared = kept[["sweep", "experiment", "key", "model", "batch", "repeat", "source", "gpu_name"]].assign(
        replicas=1.0, context_tokens=kept["context_mean_tokens"], batch=kept["batch"].astype(float)
    )
    sides = {WALL: kept["decode_step_mean_ms"], GPU: kept["gpu_ms"]}
    both = [shared.assign(servers=side, step_ms=step_ms) for side, step_ms in sides.items()]
    return pd.concat(both, ignore_index=True).dropna(subset=["context_tokens", "step_ms"])


def _cache_dtype(arguments: Mapping[str, Any]) -> str | None:
    given = arguments.get(str(VllmAdapter.flags.kv_dtype))
    return None if given in (None, "auto") else str(given)


def error_summary(errors: pd.DataFrame) -> pd.DataFrame:
    """Return quantiles of measured / predicted: over all points, by model, by batch range, and by both.

    Points on replicas have rows of their own (`servers`), since their servers disturb one another; so have the wall and
    the GPU times of offline points.
    """
    rows = []
    known = errors.dropna(subset=["measured_over_predicted"])
    kinds = known["replicas"].fillna(1).gt(1).map({True: SEVERAL, False: ONE})
    if "servers" in known:
        kinds = known["servers"].fillna(kinds)
    for servers in (ONE, SEVERAL, WALL, GPU):
        own = known[kinds == servers]
        for model in (ALL, *dict.fromkeys(own["model"])):
            of_model = own if model == ALL else own[own["model"] == model]
            for low, high in ((0.0, math.inf), *BATCH_RANGES):
                group = of_model[(of_model["batch"] > low) & (of_model["batch"] <= high)]
                if not group.empty:
                    rows.append({"servers": servers, "model": model, "batch": _named(low, high), **_quantiles(group)})
    return pd.DataFrame(rows, columns=["servers", "model", "batch", *_quantiles(known)])


def _named(low: float, high: float) -> str:
    if math.isinf(high):
        return ALL if low == 0 else f"above {low:g}"
    return f"up to {high:g}" if low == 0 else f"{low:g} to {high:g}"


def _quantiles(group: pd.DataFrame) -> dict[str, float]:
    ratio = group["measured_over_predicted"]
    return {
        "points": len(group),
        "median": ratio.median(),
        "p10": ratio.quantile(0.1),
        "p90": ratio.quantile(0.9),
        "least": ratio.min(),
        "greatest": ratio.max(),
        "lower_bound_median": group["measured_over_lower_bound"].median(),
    }
