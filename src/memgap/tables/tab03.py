"""Table III: how often attention kernels find their data in the L1 and L2 caches, at batch 1 and MAX."""

import pandas as pd

from memgap.figures.counters import ATTENTION, decode_counters, weighted_mean
from memgap.figures.offline_points import ends
from memgap.tables.forms import Content, forms
from memgap.tables.inputs import Inputs
from memgap.tables.offline_study import OfflineTables, offline_of
from memgap.tables.provenance import provenance_line
from memgap.tables.spec import TableSpec

COLUMNS = ["model", "attention_backend", "batch", "kernels", "l1_hit_fraction", "l2_hit_fraction"]

TABLE = TableSpec(
    name="tab03",
    title="Table III: cache hit rates of attention kernels",
    reads=("study.offline", "study.counters"),
    writes={
        "csv": "results/tables/tab03.csv",
        "page": "results/tables/tab03.html",
        "markdown": "results/tables/tab03.md",
        "latex": "results/tables/tab03.tex",
    },
    shown=("csv", "page"),
    digits=6,
    caption="""
L1 and L2 hit rates, one row a model, attention backend and batch (1 and MAX); means over the kernels of a decode
step, weighted by their duration. The published script swaps the two names: its "L1" is computed from the counters of
L2, its "L2" from those of L1.
""",
)


def make(inputs: Inputs) -> dict[str, Content]:
    """Return the table in its forms."""
    tables = offline_of(inputs)
    return forms(TABLE, table(tables), provenance_line(tables.points))


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
