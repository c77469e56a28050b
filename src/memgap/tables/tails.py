"""How often a latency is exceeded: the tails of time to first token and of the time between tokens, by point."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from memgap.declared.tables import TableSpec
from memgap.tables.columns import Columns
from memgap.tables.goodput import request_latencies
from memgap.tables.inputs import Inputs
from memgap.tables.requests import events_of, measured_points, requests_of

STEPS = 200
"""So many values of a curve are kept, evenly spread over the logarithm of the share beyond."""
COLUMNS = ("model", "batch_cap", "rate_req_s", "metric", "requests", "latency_ms", "beyond_fraction", "band_fraction")
TABLE = TableSpec(
    name="tails",
    title="Tails of a sweep's latencies",
    of="sweep",
    plan="group",
    writes={"tails": "results/tables/{group}.tails.csv"},
)
READ = {"tails": Columns("a table of tails", COLUMNS, ("model", "metric"), numbers=True)}
Array = NDArray[np.float64]


def make(inputs: Inputs) -> dict[str, pd.DataFrame]:
    """Return the table of the sweep of the inputs' plan."""
    return {"tails": tails_table(inputs.plan, inputs.points)}


def tails_table(plan: Mapping[str, Any], points: Path) -> pd.DataFrame:
    """Return one row a model, load, metric and latency: the share of values beyond it, over all repeats.

    `metric` is ttft, and itl where single tokens were kept, else tpot, a mean over each request. `band_fraction` is the
    half width of the 95 % band of Dvoretzky, Kiefer and Wolfowitz for as many independent values as there are
    requests: gaps within a request are not independent.
    """
    values: dict[tuple[Any, ...], list[Array]] = {}
    counts: dict[tuple[Any, ...], int] = {}
    records = {entry["key"]: entry["record"] for entry in plan.get("points", ())}
    for named, folder, _ in measured_points(plan, points):
        record = records[named["key"]]
        load = (named["model"], named["batch_cap"], record["load"].get("rate_req_s"))
        requests = requests_of(folder)
        latencies = request_latencies(requests)
        done = latencies[latencies["ok"]]
        found = {"ttft": done["ttft_ms"].to_numpy(dtype=float)}
        if (folder / "tokens.npz").exists():
            found["itl"] = gaps_ms(events_of(folder), set(requests.loc[requests["status"] == "ok", "index"]))
        else:
            found["tpot"] = done.loc[done["output_tokens"] > 1, "tpot_ms"].to_numpy(dtype=float)
        for metric, own in found.items():
            values.setdefault((*load, metric), []).append(own)
            counts[(*load, metric)] = counts.get((*load, metric), 0) + len(done)
    tables = [_curve(np.concatenate(own), counts[place], place) for place, own in values.items()]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(COLUMNS))


def gaps_ms(events: pd.DataFrame, completed: set[int]) -> Array:
    """Return the time between a request's tokens in ms; tokens that came together share the gap before them."""
    own = events[events["request"].isin(completed)]
    groups = own.groupby(["request", "time_s"], sort=True)["tokens"].sum().reset_index()
    gaps = groups.groupby("request")["time_s"].diff()
    kept = gaps.notna() & (groups["tokens"] > 0)
    counts = groups.loc[kept, "tokens"].astype(int)
    return np.repeat((gaps[kept] / counts).to_numpy(dtype=float) * 1e3, counts)


def _curve(values: Array, requests: int, place: tuple[Any, ...]) -> pd.DataFrame:
    ordered = np.sort(values[np.isfinite(values)])
    if not len(ordered):
        return pd.DataFrame(columns=list(COLUMNS))
    beyond = np.unique(np.geomspace(1.0, 1.0 / len(ordered), STEPS))[::-1]
    at = ordered[np.clip(len(ordered) - np.ceil(beyond * len(ordered) - 1e-9).astype(int), 0, len(ordered) - 1)]
    head = dict(zip(COLUMNS, (*place, requests), strict=False))
    band = np.sqrt(np.log(2 / 0.05) / (2 * requests))
    return pd.DataFrame({**head, "latency_ms": at, "beyond_fraction": beyond, "band_fraction": band})[list(COLUMNS)]
