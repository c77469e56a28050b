"""How many requests run and wait at each moment of a point, by what its engine says or by its batches' steps."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from memgap.declared.tables import TableSpec
from memgap.tables.columns import Columns
from memgap.tables.entries import series_of
from memgap.tables.inputs import Inputs
from memgap.tables.requests import NAMED, measured_points, requests_of, telemetry_of

COLUMNS = (*NAMED, "seen_by", "time_s", "running_reqs", "waiting_reqs")
ENGINE, STEPS = "engine", "steps"
TABLE = TableSpec(
    name="occupancy",
    title="Requests that run and wait over time",
    of="sweep",
    plan="group",
    writes={"occupancy": "results/tables/{group}.occupancy.csv"},
)
READ = {
    "occupancy": Columns(
        "a table of occupancy", COLUMNS, text=("sweep", "experiment", "key", "model", "seen_by"), numbers=True
    )
}


def make(inputs: Inputs) -> dict[str, pd.DataFrame]:
    """Return the table of the sweep of the inputs' plan."""
    return {"occupancy": occupancy_table(inputs.plan, inputs.points)}


def occupancy_table(plan: Mapping[str, Any], points: Path) -> pd.DataFrame:
    """Return one row a point and sample of its window, or step of its static batches.

    Of a server `running_reqs` and `waiting_reqs` are the engine's gauges at that moment. Of static batches the first is
    how many requests of the batch were not at their own end in the step that ended then, the second how many are in
    batches to come.
    """
    tables = []
    for named, folder, point in measured_points(plan, points, having=None):
        if (folder / "steps.csv.gz").exists():
            found = of_steps(series_of(folder, "steps"), requests_of(folder), int(named["batch_cap"]))
        elif (folder / "telemetry.csv.gz").exists() and "window" in point:
            found = of_samples(telemetry_of(folder), float(point["window"]["duration_s"]))
        else:
            continue
        tables.append(found.assign(**named))
    if not tables:
        return pd.DataFrame(columns=list(COLUMNS))
    return pd.concat(tables, ignore_index=True).reindex(columns=list(COLUMNS))


def of_samples(telemetry: pd.DataFrame, duration_s: float) -> pd.DataFrame:
    """Return the gauges of the samples in the window; no row where the engine told none."""
    names = {"num_requests_running": "running_reqs", "num_requests_waiting": "waiting_reqs"}
    inside = telemetry[telemetry["time_s"].between(0.0, duration_s)].reindex(columns=["time_s", *names])
    return inside.rename(columns=names).dropna(subset=["running_reqs"]).assign(seen_by=ENGINE)


def of_steps(steps: pd.DataFrame, requests: pd.DataFrame, size: int) -> pd.DataFrame:
    """Return the unfinished requests of each step of static batches of `size` requests in their order."""
    asked = requests.sort_values("index")["output_tokens_asked"].to_numpy()
    order = steps.sort_values(["batch", "time_s"], kind="stable")
    nth = order.groupby("batch").cumcount().to_numpy()
    firsts = order["batch"].to_numpy(dtype=np.int64) * size
    running = [int((asked[first : first + size] > step).sum()) for first, step in zip(firsts, nth, strict=True)]
    return pd.DataFrame(
        {
            "seen_by": STEPS,
            "time_s": order["time_s"].to_numpy(),
            "running_reqs": running,
            "waiting_reqs": np.maximum(len(asked) - firsts - size, 0),
        }
    )
