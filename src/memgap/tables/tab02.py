"""Table II: performance and DRAM traffic of attention kernels, achieved and at most, at batch 1 and MAX."""

import pandas as pd

from memgap.figures.counters import ATTENTION, rooflines
from memgap.figures.offline_points import ends
from memgap.tables.forms import Content, forms
from memgap.tables.inputs import Inputs
from memgap.tables.offline_study import OfflineTables, offline_of
from memgap.tables.provenance import provenance_line
from memgap.tables.spec import TableSpec

COLUMNS = [
    *("model", "attention_backend", "batch", "kernels", "performance_flop_s", "peak_flop_tensor_fp16_s"),
    *("peak_flop_fp32_s", "share_of_tensor_peak_fraction", "dram_traffic_bytes_s", "peak_dram_bytes_s"),
    *("share_of_dram_peak_fraction", "intensity_flop_byte", "analytic_intensity_flop_byte"),
]

TABLE = TableSpec(
    name="tab02",
    title="Table II: performance and traffic of attention kernels",
    reads=("study.offline", "study.counters"),
    writes={
        "csv": "results/tables/tab02.csv",
        "page": "results/tables/tab02.html",
        "markdown": "results/tables/tab02.md",
        "latex": "results/tables/tab02.tex",
    },
    shown=("csv", "page"),
    digits=6,
    caption="""
FLOP/s and DRAM traffic, achieved and at most, one row a model, attention backend and batch (1 and MAX). All FLOP
count, those of tensor cores too (the published table has FP32 only, under a roof that is FP64's), and the peaks are
tensor cores' and FP32's at the same kernels' clock. Beside the counted intensity stands the one that the model's
shape asks for: far from each other, and the counter cannot be right, or the kernel does more than it has to, such as
padding a tile.
""",
)


def make(inputs: Inputs) -> dict[str, Content]:
    """Return the table in its forms."""
    tables = offline_of(inputs)
    return forms(TABLE, table(tables), provenance_line(tables.points))


def table(tables: OfflineTables) -> pd.DataFrame:
    """Return table II with the columns of `COLUMNS`; the smallest and the largest batch of each model and backend."""
    rows = rooflines(tables.counters)
    rows = rows[rows["kernel_class"] == ATTENTION]
    rows = rows.rename(columns={"flop_s": "performance_flop_s", "dram_bytes_s": "dram_traffic_bytes_s"})
    kept = [own[own["batch"].isin(ends(own))] for _, own in rows.groupby(["model", "attention_backend"], sort=False)]
    found = pd.concat(kept, ignore_index=True) if kept else rows
    found = found.assign(
        batch=found["batch"].astype(int),
        share_of_tensor_peak_fraction=found["performance_flop_s"] / found["peak_flop_tensor_fp16_s"],
        share_of_dram_peak_fraction=found["dram_traffic_bytes_s"] / found["peak_dram_bytes_s"],
    )
    return found[COLUMNS]
