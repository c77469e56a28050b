"""The tables of a comparison of engines: points, KV memory by layout, memory over time."""

import pandas as pd

from memgap.kinds.static import engines, kv, memory
from memgap.tables.columns import Columns
from memgap.tables.inputs import Inputs
from memgap.tables.spec import TableSpec

TABLE = TableSpec(
    name="comparison",
    title="Tables of a comparison of engines",
    of="comparison",
    plan="group",
    writes={
        "engines": "results/tables/{group}.engines.csv",
        "kv": "results/tables/{group}.kv.csv",
        "memory": "results/tables/{group}.memory.csv",
    },
)
READ = {
    "engines": Columns("a table of a comparison", engines.COLUMNS),
    "kv": Columns("a table of a comparison", kv.COLUMNS),
    "memory": Columns("a table of a comparison", memory.COLUMNS),
}


def make(inputs: Inputs) -> dict[str, pd.DataFrame]:
    """Return the tables of the sweep of the inputs' plan."""
    return {
        "engines": engines.engines_table(inputs.plan, inputs.points),
        "kv": kv.kv_table(inputs.plan, inputs.points),
        "memory": memory.memory_table(inputs.plan, inputs.points),
    }
