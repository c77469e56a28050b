"""The requests of a sweep's points one by one, and what the engine said meanwhile."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from memgap.declared.tables import TableSpec
from memgap.tables.columns import Columns
from memgap.tables.inputs import Inputs
from memgap.tables.over_time import GAUGES
from memgap.tables.requests import NAMED, measured_points, requests_of, telemetry_of

MOMENTS = ("intended_s", "sent_s", "first_token_s", "last_token_s")
REQUESTS = (*NAMED, "index", "status", *MOMENTS)
OVER_TIME = (*NAMED, "time_s", *GAUGES)
TEXT = ("sweep", "experiment", "key", "model")
TABLE = TableSpec(
    name="requests",
    title="Requests of a sweep",
    of="sweep",
    plan="group",
    writes={"requests": "results/tables/{group}.requests.parquet", "gauges": "results/tables/{group}.gauges.parquet"},
)
READ = {
    "requests": Columns("a table of requests", REQUESTS, (*TEXT, "status"), numbers=True),
    "gauges": Columns("a table of samples", OVER_TIME, TEXT, numbers=True),
}


def make(inputs: Inputs) -> dict[str, pd.DataFrame]:
    """Return the tables of the sweep of the inputs' plan."""
    return tables_of(inputs.plan, inputs.points)


def tables_of(plan: Mapping[str, Any], points: Path) -> dict[str, pd.DataFrame]:
    """Return the requests and samples of the points that kept their requests; times in s since the window's start."""
    found: dict[str, list[pd.DataFrame]] = {"requests": [], "gauges": []}
    for named, folder, _ in measured_points(plan, points):
        found["requests"].append(requests_of(folder).assign(**named))
        if (folder / "telemetry.csv.gz").exists():
            renamed = telemetry_of(folder).rename(columns={column: name for name, column in GAUGES.items()})
            found["gauges"].append(renamed.assign(**named))
    return {name: READ[name].typed(_together(tables, READ[name].names)) for name, tables in found.items()}


def _together(tables: list[pd.DataFrame], names: tuple[str, ...]) -> pd.DataFrame:
    whole = [table.reindex(columns=list(names)).astype(object) for table in tables]
    return pd.concat(whole, ignore_index=True) if whole else pd.DataFrame(columns=list(names))
