"""Sums and means over the kernels that ncu counted, weighted by how long each ran."""

import math
from typing import Any

import pandas as pd

from memgap.figures.analytic_work import step_work
from memgap.figures.offline_points import main_setting
from memgap.tables.offline_study import STALL
from memgap.tables.once import once

PLANNING = ("prepare_varlen_num_blocks_kernel",)
"""Kernels of FlashAttention 3 that share out its work and touch no key or value; they count as attention's time."""
ATTENTION, MATMUL = "attention", "matmul"
FLOP = ("flop_fp32", "flop_fp16", "flop_fp64", "flop_tensor")
BYTES = ("dram_read_bytes", "dram_write_bytes")
PAPERS_REASON = "long_scoreboard"
"""The published "idle cycles" are this reason's share alone: waiting for data from L1, L2 or DRAM."""
LENGTHS = ("prompt_tokens", "output_tokens")
GROUP = ["model", "kernel_class", "attention_backend", "batch"]


@once
def decode_counters(counters: pd.DataFrame) -> pd.DataFrame:
    """Return the decode kernels of each model at the lengths that were profiled at the most batches, without those that
    only plan others.
    """
    planning = counters["name"].astype(str).isin(PLANNING)
    return main_setting(counters[(counters["phase"] == "decode") & ~planning], LENGTHS)


def weighted_mean(kernels: pd.DataFrame, column: str) -> float:
    """Return the mean of a column over kernels, each weighted by its duration; not a number where none has one."""
    known = kernels.dropna(subset=[column, "duration_s"])
    total = known["duration_s"].sum()
    return float((known[column] * known["duration_s"]).sum() / total) if total > 0 else math.nan


def rooflines(counters: pd.DataFrame) -> pd.DataFrame:
    """Return a row a model, kernel class (attention, matmul), attention backend and batch: sums over kernels.

    Columns: those of `GROUP`, kernels, flop_s, dram_bytes_s, intensity_flop_byte (all FLOP counted over all DRAM
    traffic), analytic_intensity_flop_byte (from the model's shape, not a number where that is unknown) and the peaks.
    Matrix products do not depend on the attention backend, so that their rows have none.
    """
    kernels = decode_counters(counters)
    kernels = kernels[kernels["kernel_class"].isin([ATTENTION, MATMUL])].dropna(subset=["duration_s"])
    backend = kernels["attention_backend"].fillna("").where(kernels["kernel_class"] == ATTENTION, "")
    rows = []
    for key, own in kernels.assign(attention_backend=backend).groupby(GROUP, sort=False):
        seconds = own["duration_s"].sum()
        counted = own[list(FLOP)].notna().any(axis=None) and own["dram_read_bytes"].notna().all()
        if not counted or seconds <= 0:
            continue
        named: dict[str, Any] = dict(zip(GROUP, key, strict=True))
        flop, moved = own[list(FLOP)].sum().sum(), own[list(BYTES)].sum().sum()
        work = step_work(named["model"], named["kernel_class"], named["batch"], weighted_mean(own, "context_tokens"))
        rows.append(
            {
                **named,
                "kernels": len(own),
                "flop_s": flop / seconds,
                "dram_bytes_s": moved / seconds,
                "intensity_flop_byte": flop / moved if moved else math.nan,
                "analytic_intensity_flop_byte": work.intensity if work else math.nan,
                **{column: weighted_mean(own, column) for column in PEAKS},
            }
        )
    columns = [*GROUP, "kernels", "flop_s", "dram_bytes_s", "intensity_flop_byte", "analytic_intensity_flop_byte"]
    return pd.DataFrame(rows, columns=[*columns, *PEAKS]).sort_values(
        ["kernel_class", "attention_backend", "batch"], kind="stable", ignore_index=True
    )


PEAKS = ("peak_flop_tensor_fp16_s", "peak_flop_fp32_s", "peak_dram_bytes_s")


def stall_shares(kernels: pd.DataFrame) -> dict[str, float]:
    """Return each stall reason's share of the warp latency (both in cycles an issued instruction), largest first.

    Kernels are weighted by their duration. The shares of all reasons sum to about one; what no reason names is
    "unnamed". Empty where nothing was counted.
    """
    latency = weighted_mean(kernels, "warp_latency_cycles")
    if not latency > 0:
        return {}
    found = {}
    for column in kernels.columns:
        if column.startswith(STALL):
            cycles = weighted_mean(kernels, column)
            if cycles > 0:
                found[column.removeprefix(STALL).removesuffix("_cycles")] = cycles / latency
    rest = 1.0 - sum(found.values())
    ordered = dict(sorted(found.items(), key=lambda one: -one[1]))
    return {**ordered, "unnamed": rest} if rest > 0.005 else ordered
