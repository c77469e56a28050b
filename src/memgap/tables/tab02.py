"""Table II: performance and DRAM traffic of attention kernels, achieved and at most, at batch 1 and MAX.

One row a model, attention backend and batch. All FLOP count, those of tensor cores too (the published table has FP32
only, under a roof that is FP64's), and the peaks are those of the same kernels' clock. Beside the counted intensity
stands the one that the model's shape asks for: far from each other, and the counter cannot be right, or the kernel
does more than it has to, such as padding a tile.
"""

import pandas as pd

from memgap.figures.counters import ATTENTION, rooflines
from memgap.figures.offline_inputs import OfflineTables
from memgap.figures.offline_points import ends

COLUMNS = [
    *("model", "attention_backend", "batch", "kernels", "performance_flop_s", "peak_flop_tensor_fp16_s"),
    *("peak_flop_fp32_s", "share_of_tensor_peak_fraction", "dram_traffic_bytes_s", "peak_dram_bytes_s"),
    *("share_of_dram_peak_fraction", "intensity_flop_byte", "analytic_intensity_flop_byte"),
]


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
