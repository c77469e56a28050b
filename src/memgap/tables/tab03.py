"""Table III: how often attention kernels find their data in the L1 and L2 caches, at batch 1 and MAX.

One row a model, attention backend and batch; means over the kernels of a decode step, weighted by their duration. The
published script swaps the two names: its "L1" is computed from the counters of L2, its "L2" from those of L1.
"""

import pandas as pd

from memgap.figures.counters import ATTENTION, decode_counters, weighted_mean
from memgap.figures.offline_inputs import OfflineTables
from memgap.figures.offline_points import ends

COLUMNS = ["model", "attention_backend", "batch", "kernels", "l1_hit_fraction", "l2_hit_fraction"]


def table(tables: OfflineTables) -> pd.DataFrame:
    """Return table III with the columns of `COLUMNS`; the smallest and the largest batch of each model and backend."""
    kernels = decode_counters(tables.counters)
    kernels = kernels[kernels["kernel_class"] == ATTENTION]
    rows = []
    for (model, backend), own in kernels.groupby(["model", "attention_backend"], sort=False, dropna=False):
        for batch in ends(own):
            at = own[own["batch"] == batch]
            rates = {column: weighted_mean(at, column) for column in COLUMNS[-2:]}
            head = {"model": model, "attention_backend": backend, "batch": int(batch), "kernels": len(at)}
            rows.append({**head, **rates})
    return pd.DataFrame(rows, columns=COLUMNS)
