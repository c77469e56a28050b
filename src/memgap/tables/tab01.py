"""Table I: prefill against decode at MAX, the largest batch that fits; one row a model and phase."""

from typing import Any

import pandas as pd

from memgap.figures.device_metrics import METRICS, phase_metrics
from memgap.figures.offline_points import main_points
from memgap.tables.forms import Content, forms
from memgap.tables.inputs import Inputs
from memgap.tables.offline_study import PHASES, OfflineTables, offline_of
from memgap.tables.once import once
from memgap.tables.provenance import provenance_line
from memgap.tables.spec import TableSpec

COLUMNS = [
    *("model", "batch", "phase", "repeats", "time_s", "time_share_fraction", "steps"),
    *(f"{metric}_{statistic}_fraction" for metric in METRICS for statistic in ("mean", "max")),
    "source",
]

TABLE = TableSpec(
    name="tab01",
    title="Table I: prefill and decode at MAX",
    reads=("study.offline", "study.classes", "study.counters", "study.gpu"),
    writes={
        "csv": "results/tables/tab01.csv",
        "page": "results/tables/tab01.html",
        "markdown": "results/tables/tab01.md",
        "latex": "results/tables/tab01.tex",
    },
    shown=("csv", "page"),
    digits=6,
    caption="""
Shares of the time and of the GPU's units at MAX, the largest batch that fits, one row a model and phase; `source`
says where the device metrics come from, as in figure 5: without GPU metrics over time they are NVML's, whose DRAM
counter has reads and writes in one, or those of single kernels. The phase of a step is the scheduler's own, without
the paper's step too many: the published logs count the first decode step as prefill.
""",
)


def make(inputs: Inputs) -> dict[str, Content]:
    """Return the table in its forms."""
    tables = offline_of(inputs)
    return forms(TABLE, table(tables), provenance_line(tables.points))


@once
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
