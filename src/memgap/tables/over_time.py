"""Every second of a point: tokens, requests in flight, first tokens, and what the engine said."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from memgap.declared.tables import TableSpec
from memgap.tables.inputs import Inputs
from memgap.tables.requests import NAMED, events_of, measured_points, requests_of, telemetry_of

GAUGES = {
    "running_reqs": "num_requests_running",
    "waiting_reqs": "num_requests_waiting",
    "kv_cache_usage_fraction": "kv_cache_usage_fraction",
    "gpu_power_w": "gpu_power_w",
}
COLUMNS = (
    *NAMED,
    "second",
    "output_tok_s",
    "sent_req_s",
    "done_req_s",
    "in_flight_reqs",
    "ttft_mean_ms",
    *GAUGES,
)


TABLE = TableSpec(
    name="series",
    title="Every second of a sweep",
    of="sweep",
    plan="group",
    writes={"series": "results/tables/{group}.series.csv"},
)


def make(inputs: Inputs) -> dict[str, pd.DataFrame]:
    """Return the table of the sweep of the inputs' plan."""
    return {"series": series_table(inputs.plan, inputs.points)}


def series_table(plan: Mapping[str, Any], points: Path) -> pd.DataFrame:
    """Return one row a point and second of its window; the last second may be a part of one, its rates are by 1 s."""
    tables = []
    for named, folder, point in measured_points(plan, points):
        seconds = int(np.ceil(point["window"]["duration_s"]))
        found = point_series(requests_of(folder), events_of(folder), telemetry_of(folder), seconds)
        tables.append(found.assign(**named))
    if not tables:
        return pd.DataFrame(columns=list(COLUMNS))
    return pd.concat(tables, ignore_index=True)[list(COLUMNS)]


def point_series(requests: pd.DataFrame, events: pd.DataFrame, telemetry: pd.DataFrame, seconds: int) -> pd.DataFrame:
    """Return the rows of one point. `in_flight_reqs` is the time-weighted mean over the second, by sweeping over all
    sends and ends; gauges are means of the second's samples, empty without one.
    """
    edges = np.arange(seconds + 1, dtype=np.float64)
    sent, end = requests["sent_s"].dropna().to_numpy(), requests["end_s"].dropna().to_numpy()
    first = requests["first_token_s"].to_numpy(dtype=np.float64)
    ttft_ms = (first - requests["sent_s"].to_numpy(dtype=np.float64)) * 1e3
    came = ~np.isnan(ttft_ms)
    counts, _ = np.histogram(first[came], edges)
    sums, _ = np.histogram(first[came], edges, weights=ttft_ms[came])
    rows: dict[str, Any] = {
        "second": np.arange(seconds),
        "output_tok_s": np.histogram(events["time_s"], edges, weights=events["tokens"])[0],
        "sent_req_s": np.histogram(sent, edges)[0],
        "done_req_s": np.histogram(end, edges)[0],
        "in_flight_reqs": time_weighted(sent, edges) - time_weighted(end, edges),
        "ttft_mean_ms": np.where(counts > 0, sums / np.maximum(counts, 1), np.nan),
    }
    second = np.floor(telemetry["time_s"])
    for name, column in GAUGES.items():
        means = telemetry[column].groupby(second).mean() if column in telemetry else pd.Series(dtype=np.float64)
        rows[name] = means.reindex(range(seconds)).to_numpy(dtype=np.float64)
    return pd.DataFrame(rows)


def time_weighted(moments: "np.typing.NDArray[np.float64]", edges: "np.typing.NDArray[np.float64]") -> Any:
    """Return for each slice the time-weighted mean of how many moments have passed."""
    total = np.array([np.maximum(edge - moments, 0.0).sum() for edge in edges])
    return np.diff(total) / np.diff(edges)
