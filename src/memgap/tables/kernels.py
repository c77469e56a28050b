"""The kernels of a sweep's profiled points as one table; GPU utilisation in their place where no profiler ran."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from memgap.tables.columns import Columns
from memgap.tables.entries import series_of
from memgap.tables.inputs import Inputs
from memgap.tables.requests import measured_points
from memgap.tables.spec import TableSpec

KERNELS, NVML = "kernels", "nvml"
KEPT_S = 0.06
COLUMNS = (
    *("sweep", "experiment", "key", "model", "batch_cap", "replicas", "mps", "source"),
    *("replica", "start_s", "duration_s", "busy_fraction", "stream", "name"),
)


TABLE = TableSpec(
    name="kernels",
    title="Kernel timelines of a sweep",
    of="sweep",
    plan="group",
    writes={"kernels": "results/tables/{group}.kernels.csv"},
)
READ = {"kernels": Columns("a table of kernels", COLUMNS)}


def make(inputs: Inputs) -> dict[str, pd.DataFrame]:
    """Return the table of the sweep of the inputs' plan."""
    return {"kernels": kernels_table(inputs.plan, inputs.points)}


def kernels_table(plan: Mapping[str, Any], points: Path) -> pd.DataFrame:
    """Return one row a kernel of the first 60 ms of each profiled point (`busy_fraction` 1), or a row a sample of NVML
    with its utilisation where the point has no kernels. Points without either are absent.
    """
    tables = []
    for named, folder, point in measured_points(plan, points, having="point.json"):
        server = point["record"]["server"]
        found = _kernels(folder)
        if found.empty:
            found = _utilisation(folder)
        shared = {"replicas": server["replicas"], "mps": "yes" if server["mps"] else "no"}
        tables.append(found.assign(**named, **shared))
    if not tables:
        return pd.DataFrame(columns=list(COLUMNS))
    return pd.concat(tables, ignore_index=True).reindex(columns=list(COLUMNS))


def _kernels(folder: Path) -> pd.DataFrame:
    table = series_of(folder, "kernels", missing=())
    if table.empty:
        return table
    return table[table["start_s"] < KEPT_S].assign(source=KERNELS, busy_fraction=1.0)


def _utilisation(folder: Path) -> pd.DataFrame:
    table = series_of(folder, "telemetry", missing=())
    if table.empty or "gpu_util_fraction" not in table or table["gpu_util_fraction"].isna().all():
        return pd.DataFrame()
    inside = table[table["time_s"] >= 0].dropna(subset=["gpu_util_fraction"])
    lasting = inside["time_s"].shift(-1) - inside["time_s"]
    return pd.DataFrame(
        {
            "source": NVML,
            "replica": 1,
            "start_s": inside["time_s"],
            "duration_s": lasting.fillna(0.0),
            "busy_fraction": inside["gpu_util_fraction"],
            "name": "GPU utilisation",
        }
    )
