"""The kernels of a sweep's profiled points as one table; GPU utilisation in their place where no profiler ran."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from memgap.errors import DAMAGE, UserError
from memgap.tables.requests import measured_points

KERNELS, NVML = "kernels", "nvml"
KEPT_S = 0.06
COLUMNS = (
    *("sweep", "experiment", "key", "model", "batch_cap", "replicas", "mps", "source"),
    *("replica", "start_s", "duration_s", "busy_fraction", "stream", "name"),
)


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


def read_kernels_table(path: Path) -> pd.DataFrame:
    """Return a table that `kernels_table` made; raises UserError where it is none."""
    try:
        table = pd.read_csv(path)
    except DAMAGE as error:
        raise UserError(f"{path}: not a table of kernels ({error}); let Snakemake make it again.") from error
    if list(table.columns) != list(COLUMNS):
        raise UserError(f"{path}: not a table of kernels; let Snakemake make it again.")
    return table


def _kernels(folder: Path) -> pd.DataFrame:
    table = _read(folder / "kernels.csv.gz")
    if table.empty:
        return table
    return table[table["start_s"] < KEPT_S].assign(source=KERNELS, busy_fraction=1.0)


def _utilisation(folder: Path) -> pd.DataFrame:
    table = _read(folder / "telemetry.csv.gz")
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


def _read(path: Path) -> pd.DataFrame:
    if not path.exists():
        return pd.DataFrame()
    try:
        return pd.read_csv(path)
    except DAMAGE as error:
        raise UserError(f"{path} is damaged ({error}); measure the point again.") from error
