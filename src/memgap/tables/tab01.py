"""Table I: prefill against decode at MAX, the largest batch that fits: shares of the time and of the GPU's units.

One row a model and phase. A step's phase is the scheduler's own; the published logs count the first decode step as
prefill. `source` says where the device metrics come from (see `memgap.figures.device_metrics`): without GPU metrics
over time they are NVML's, whose DRAM counter has reads and writes in one, or those of single kernels.
"""

from typing import Any

import pandas as pd

from memgap.figures.device_metrics import METRICS, phase_metrics
from memgap.figures.offline_inputs import PHASES, OfflineTables
from memgap.figures.offline_points import main_points

COLUMNS = [
    *("model", "batch", "phase", "repeats", "time_s", "time_share_fraction", "steps"),
    *(f"{metric}_{statistic}_fraction" for metric in METRICS for statistic in ("mean", "max")),
    "source",
]


def table(tables: OfflineTables) -> pd.DataFrame:
    """Return table I with the columns of `COLUMNS`; what was not measured is empty."""
    rows = []
    points = main_points(tables).dropna(subset=["prefill_s", "decode_s"])
    for model, own in points.groupby("model", sort=False):
        largest = own[own["batch"] == own["batch"].max()]
        total = (largest["prefill_s"] + largest["decode_s"]).mean()
        for phase in PHASES:
            found, source = phase_metrics(tables, largest, phase)
            seconds = largest[f"{phase}_s"].mean()
            row: dict[str, Any] = {
                "model": model,
                "batch": int(largest["batch"].iloc[0]),
                "phase": phase,
                "repeats": len(largest),
                "time_s": seconds,
                "time_share_fraction": seconds / total,
                "steps": largest[f"{phase}_steps"].mean(),
                "source": source,
            }
            for metric, (mean, top) in found.items():
                row[f"{metric}_mean_fraction"], row[f"{metric}_max_fraction"] = mean, top
            rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS)
