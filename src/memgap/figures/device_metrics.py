"""DRAM traffic and busy units of the GPU over a phase, from the best source that a study has.

In this order, each metric from the first source that has it: samples of device counters over time (nsys GPU metrics, or
NVML's), NVML's means and maxima over the unprofiled phase, and ncu's counters of single kernels. A kernel's counters
hold while it runs, so that their mean over one step is weighted by the kernels' durations and multiplied by the share
of the step in which any kernel ran.

Of NVML's GPM counters only DRAM is believed: on the H200 of the recorded data it agrees with the bytes that a step has
to read, while its SM and warp activity stay ten times below ncu's counters of the very kernels that fill the step.
"""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from memgap.figures.counters import decode_counters, weighted_mean
from memgap.tables.offline_study import DEVICE_METRICS, OfflineTables

KERNEL_COLUMNS = {
    "sm_active": "sm_active_fraction",
    "warps": "warps_in_flight_fraction",
    "tensor": "tensor_pipe_fraction",
    "dram_read": "dram_read_fraction",
    "dram": "dram_fraction",
}
METRICS = {
    "dram_read": "DRAM read",
    "dram": "DRAM read and write",
    "warps": "warps in flight",
    "sm_active": "SMs active",
    "tensor": "tensor cores",
}
DRAM = ("dram_read", "dram")
NVML, NCU = "NVML GPM", "ncu counters of single kernels"


def _believed(metric: str, profiler: str) -> bool:
    return profiler != "gpm" or metric in DRAM


def phase_metrics(
    tables: OfflineTables, points: pd.DataFrame, phase: str
) -> tuple[dict[str, tuple[float, float]], str]:
    """Return (mean, max) by metric over a phase of the points of one model and batch, and the source's name.

    `points`: unprofiled points, one model and batch. Fractions of the GPU's peak. Empty with "" where nothing is known.
    """
    head = points.iloc[0]
    place: dict[str, Any] = {name: head[name] for name in ("model", "batch")}
    found: dict[str, tuple[float, float]] = {}
    sources: list[str] = []
    for more, source in (
        _sampled(tables.gpu, place, phase),
        (_by_nvml(points, phase), NVML),
        (_by_kernels(tables, place, phase), NCU),
    ):
        new = {metric: values for metric, values in more.items() if metric not in found and not _known(metric, found)}
        if new:
            found.update(new)
            sources.append(f"{source}: {', '.join(METRICS[metric] for metric in new)}" if sources else source)
    return found, "; ".join(sources)


def _known(metric: str, found: Mapping[str, Any]) -> bool:
    """Whether a source before has DRAM traffic already, reads alone or both together."""
    return metric in DRAM and any(one in found for one in DRAM)


def samples_of(gpu: pd.DataFrame, model: str, batch: float, phase: str) -> pd.DataFrame:
    """Return the samples over time of one model, batch and phase: of one point, the first that has any."""
    own = gpu[(gpu["model"] == model) & (gpu["batch"] == batch) & (gpu["phase"] == phase)]
    return own[own["key"] == own["key"].iloc[0]] if len(own) else own


def _sampled(gpu: pd.DataFrame, place: Mapping[str, Any], phase: str) -> tuple[dict[str, tuple[float, float]], str]:
    own = samples_of(gpu, place["model"], place["batch"], phase).dropna(subset=["value_fraction"])
    found = {
        str(metric): (float(values.mean()), float(values.max()))
        for metric, values in own.groupby("metric", sort=False)["value_fraction"]
        if metric in METRICS and _believed(str(metric), str(own["profiler"].iloc[0]))
    }
    return found, f"{own['profiler'].iloc[0]}, sampled over time" if len(own) else ""


def _by_nvml(points: pd.DataFrame, phase: str) -> dict[str, tuple[float, float]]:
    found = {}
    for metric in (one for one in DEVICE_METRICS if one in DRAM):
        mean, top = (points[f"{phase}_{metric}_{name}_fraction"] for name in ("mean", "max"))
        if mean.notna().any():
            found[metric] = (float(mean.mean()), float(top.max()))
    return found


def _by_kernels(tables: OfflineTables, place: Mapping[str, Any], phase: str) -> dict[str, tuple[float, float]]:
    kernels = (
        decode_counters(tables.counters) if phase == "decode" else tables.counters[tables.counters["phase"] == phase]
    )
    for column, value in place.items():
        kernels = kernels[kernels[column] == value]
    busy = busy_fraction(tables.classes, place["model"], place["batch"], phase)
    found = {}
    for metric, column in KERNEL_COLUMNS.items():
        mean = weighted_mean(kernels, column)
        if not math.isnan(mean) and not math.isnan(busy):
            found[metric] = (mean * busy, float(kernels[column].max()))
    return found


def busy_fraction(classes: pd.DataFrame, model: str, batch: float, phase: str) -> float:
    """Return the share of an unprofiled step in which kernels run, at most 1; not a number where it is unknown."""
    own = classes[(classes["model"] == model) & (classes["batch"] == batch) & (classes["phase"] == phase)]
    share = (own["busy_ms_per_step"] / own["wall_ms_per_step"]).dropna()
    return min(float(share.iloc[0]), 1.0) if len(share) else math.nan
