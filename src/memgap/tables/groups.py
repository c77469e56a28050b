"""Latencies by group of requests: the parts of a mixture, over the whole window of each point."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from memgap.declared.tables import TableSpec
from memgap.tables.columns import Columns
from memgap.tables.enough import percentile
from memgap.tables.gaps import token_gaps
from memgap.tables.inputs import Inputs
from memgap.tables.requests import NAMED, events_of, measured_points, requests_of

LATENCIES = ("ttft", "itl", "e2e")
GROUP_COLUMNS = (
    *("group", "requests", "requests_completed", "prompt_tokens_mean", "output_tokens_mean"),
    *(f"{one}_{name}" for one in LATENCIES for name in ("values", "mean_ms", "median_ms", "p99_ms")),
    *("itl_p99_over_p50", "itl_max_ms"),
)
COLUMNS = (*NAMED, *GROUP_COLUMNS)
KIND = "groups"
TABLE = TableSpec(
    name="groups",
    title="Latencies by group of requests",
    of="sweep",
    plan="group",
    writes={"groups": "results/tables/{group}.groups.csv"},
)
READ = {
    "groups": Columns("a table of groups", COLUMNS, text=("sweep", "experiment", "key", "model", "group"), numbers=True)
}


def make(inputs: Inputs) -> dict[str, pd.DataFrame]:
    """Return the table of the sweep of the inputs' plan."""
    return {"groups": groups_table(inputs.plan, inputs.points)}


def groups_table(plan: Mapping[str, Any], points: Path) -> pd.DataFrame:
    """Return one row a point and part of its mixture; points of other datasets have none.

    A percentile q is empty under 10 / (1 - q) values, whose number stands beside it.
    """
    tables = [
        groups_of(folder, point["record"]).assign(**named)
        for named, folder, point in measured_points(plan, points, having=None)
        if names_of(point["record"])
    ]
    return READ[KIND].joined(tables)


def names_of(record: Mapping[str, Any]) -> list[str]:
    """Return what the parts of a record's mixture are called, none for another dataset."""
    parts = record.get("dataset", {}).get("parts", [])
    return [str(part.get("name", number)) for number, part in enumerate(parts)]


def groups_of(folder: Path, record: Mapping[str, Any]) -> pd.DataFrame:
    """Return the rows of a stored point (`GROUP_COLUMNS`); a recorded one has them as they were recorded."""
    if (folder / f"{KIND}.csv.gz").exists():
        return pd.read_csv(folder / f"{KIND}.csv.gz", dtype={"group": str})
    if not (folder / "requests.csv.gz").exists():
        return pd.DataFrame(columns=list(GROUP_COLUMNS))
    requests = requests_of(folder)
    gaps = token_gaps(requests, events_of(folder)) if (folder / "tokens.npz").exists() else None
    rows = [_row(name, requests[requests["group"] == number], gaps) for number, name in enumerate(names_of(record))]
    return pd.DataFrame(rows, columns=list(GROUP_COLUMNS))


def _row(name: str, requests: pd.DataFrame, gaps: pd.DataFrame | None) -> dict[str, Any]:
    done = requests[requests["status"] == "ok"]
    values: dict[str, pd.Series[float]] = {
        "ttft": (done["first_token_s"] - done["sent_s"]).dropna() * 1e3,
        "e2e": (done["last_token_s"] - done["sent_s"]).dropna() * 1e3,
    }
    if gaps is not None:
        own = gaps[gaps["request"].isin(done["index"])]
        values["itl"] = pd.Series(np.repeat(own["gap_ms"], own["tokens"]))
    row: dict[str, Any] = {
        "group": name,
        "requests": int(requests["sent_s"].notna().sum()),
        "requests_completed": len(done),
        "prompt_tokens_mean": _mean(done["prompt_tokens_server"].fillna(done["prompt_tokens_asked"])),
        "output_tokens_mean": _mean(done["output_tokens_server"].fillna(done["output_tokens_seen"])),
    }
    for latency, found in values.items():
        row[f"{latency}_values"] = len(found)
        row[f"{latency}_mean_ms"] = _mean(found)
        row[f"{latency}_median_ms"], row[f"{latency}_p99_ms"] = percentile(found, 50), percentile(found, 99)
    if row.get("itl_p99_ms") is not None and row["itl_median_ms"]:
        row["itl_p99_over_p50"] = row["itl_p99_ms"] / row["itl_median_ms"]
    if row.get("itl_values"):
        row["itl_max_ms"] = float(values["itl"].max())
    return row


def _mean(values: "pd.Series[Any]") -> float | None:
    return float(values.mean()) if len(values) else None
