"""A point as a trace that ui.perfetto.dev and chrome://tracing open: its requests, and the engine meanwhile."""

import heapq
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from memgap.errors import UserError

REQUESTS, ENGINE, KERNELS = 1, 2, 3
"""Processes of the trace."""
COUNTERS = {
    "requests": {"running": "num_requests_running", "waiting": "num_requests_waiting"},
    "KV cache in use (%)": {"share": "kv_cache_usage_fraction"},
    "GPU power (W)": {"power": "gpu_power_w"},
}


def trace(point: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the trace of a stored point; its times are in us since the window's start.

    Raises UserError where the point kept neither requests nor samples nor kernels.
    """
    events = [*_requests(_table(folder, "requests")), *_samples(_table(folder, "telemetry"))]
    events += _kernels(_table(folder, "kernels"))
    if not events:
        raise UserError(f"the point {point['key']} kept neither requests nor samples; there is nothing to trace.")
    names = {REQUESTS: f"requests of {point['key']}", ENGINE: "engine and GPU", KERNELS: "kernels"}
    named = [{"ph": "M", "name": "process_name", "pid": pid, "args": {"name": name}} for pid, name in names.items()]
    about = {"model": point["record"]["model"]["name"], "measured": point["provenance"]["date_utc"]}
    return {"traceEvents": [*named, *events], "displayTimeUnit": "ms", "otherData": {"key": point["key"], **about}}


def _table(folder: Path, kind: str) -> pd.DataFrame:
    path = folder / f"{kind}.csv.gz"
    return pd.read_csv(path) if path.exists() else pd.DataFrame()


def _requests(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a row of each request in the lowest track that is free: until its first token, then until its last."""
    if table.empty:
        return []
    start_s = table["intended_s"].fillna(table["sent_s"])
    free: list[int] = []
    busy: list[tuple[float, int]] = []
    events, tracks = [], 0
    for place in start_s.dropna().sort_values(kind="stable").index:
        row, begun = table.loc[place], float(start_s[place])
        while busy and busy[0][0] <= begun:
            heapq.heappush(free, heapq.heappop(busy)[1])
        if free:
            track = heapq.heappop(free)
        else:
            tracks += 1
            track = tracks
        moments = [begun, *(float(row[name]) for name in ("first_token_s", "last_token_s"))]
        end = max(moment for moment in moments if not math.isnan(moment))
        heapq.heappush(busy, (end, track))
        about = {"request": int(row["index"]), "status": str(row["status"])}
        about |= {name: int(row[name]) for name in ("prompt_tokens_asked", "output_tokens_seen") if pd.notna(row[name])}
        for name, low, high in (("until the first token", 0, 1), ("tokens", 1, 2)):
            if not (math.isnan(moments[low]) or math.isnan(moments[high])):
                span = {"ts": 1e6 * moments[low], "dur": 1e6 * (moments[high] - moments[low])}
                events.append({"ph": "X", "name": name, "pid": REQUESTS, "tid": track, **span, "args": about})
    return events


def _samples(table: pd.DataFrame) -> list[dict[str, Any]]:
    events = []
    for name, series in COUNTERS.items():
        factor = 100.0 if "%" in name else 1.0
        present = {label: column for label, column in series.items() if column in table}
        for _, row in table.dropna(subset=list(present.values())).iterrows() if present else ():
            values = {label: factor * float(row[column]) for label, column in present.items()}
            events.append({"ph": "C", "name": name, "pid": ENGINE, "ts": 1e6 * float(row["time_s"]), "args": values})
    return events


def _kernels(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the kernels of a profiled point on a clock of their own, one track a replica and stream."""
    if table.empty or "start_s" not in table:
        return []
    lasts = table["end_s"] - table["start_s"] if "end_s" in table else table["duration_s"]
    tracks = {name: place for place, name in enumerate(dict.fromkeys(map(str, table.get("replica", table.index * 0))))}
    return [
        {
            "ph": "X",
            "name": str(row["name"]),
            "pid": KERNELS,
            "tid": tracks[str(row.get("replica", 0))],
            "ts": 1e6 * float(row["start_s"]),
            "dur": 1e6 * float(last_s),
        }
        for (_, row), last_s in zip(table.iterrows(), lasts, strict=True)
    ]
