"""The tables of restarts: one row a point and window, and one a start and phase of it."""

from typing import Any

import pandas as pd

from memgap.tables.columns import Columns
from memgap.tables.entries import Entry, entries
from memgap.tables.inputs import Inputs
from memgap.tables.spec import TableSpec

METRICS = (
    *("ttft_mean_ms", "ttft_median_ms", "ttft_p99_ms", "itl_mean_ms", "e2e_mean_ms", "total_throughput_tok_s"),
    *("requests_completed", "requests_failed", "prefix_cache_queries", "prefix_cache_hits"),
)
OUTCOME = ("status", "flags", "verdict", "error_kind", "error_message", "date_utc", "device", "gpu_name", "driver")
NAMED = ("group", "experiment", "key", "session", "model", "engine", "engine_version", "batch_cap", "repeat")
STARTS = ("first", "again")
FIRST, BEFORE = "first_token", "before"
COLUMNS = (*NAMED, *OUTCOME, "source", "window", *METRICS, "prefix_hit_fraction", "first_ttft_ms", "start_s")
PHASE_COLUMNS = (*NAMED, "start", "phase", "place", "duration_s")
TABLE = TableSpec(
    name="restart",
    title="Tables of restarts",
    of="restarts",
    plan="group",
    writes={
        "restart": "results/tables/{group}.restart.csv",
        "startup": "results/tables/{group}.startup.csv",
    },
    wanted=("restart", "startup"),
    shown=("restart", "startup"),
    category="Restarts",
    caption="""
What a restart costs. One row a point and window: before the stop, cold right after the start, and warm, the same
prompts once more. `first_ttft_ms` is that of the request that was sent first. The second table has each start by
phase, as the server's log tells it; what the log does not tell is part of the phase after it.
""",
)
_TEXT = (*NAMED[:7], *OUTCOME, "source", "window")
READ = {
    "restart": Columns("a table of restarts", COLUMNS, text=_TEXT, numbers=True),
    "startup": Columns("a table of starts", PHASE_COLUMNS, text=(*NAMED[:7], "start", "phase"), numbers=True),
}


def make(inputs: Inputs) -> dict[str, pd.DataFrame | str]:
    """Return both tables of the inputs' plan."""
    found = entries(inputs.plan, inputs.points)
    group = {"group": inputs.plan["sweep"]}
    windows = [{**group, **row} for entry in found for row in _windows(entry)]
    phases = [{**group, **row} for entry in found for row in _phases(entry)]
    return {
        "restart": pd.DataFrame(windows, columns=list(COLUMNS)),
        "startup": pd.DataFrame(phases, columns=list(PHASE_COLUMNS)),
    }


def _windows(entry: Entry) -> list[dict[str, Any]]:
    row = {**entry.declared, "batch_cap": entry.record["batch_cap"], **entry.outcome}
    if entry.point is None or not entry.point.get("windows"):
        return [row]
    summary, starts = entry.point["summary"], entry.point.get("starts", [])
    rows = []
    for window in entry.point["windows"]:
        own = {name: summary.get(f"{window}_{name}") for name in METRICS}
        asked, hit = own["prefix_cache_queries"], own["prefix_cache_hits"]
        start = starts[0 if window == BEFORE else -1] if starts else {}
        more = {
            "prefix_hit_fraction": hit / asked if asked else None,
            "first_ttft_ms": _first_ttft_ms(entry, window),
            "start_s": start.get("start_s"),
        }
        rows.append({**row, "window": window, **own, **more})
    return rows


def _phases(entry: Entry) -> list[dict[str, Any]]:
    starts = (entry.point or {}).get("starts", [])
    named = {**entry.declared, "batch_cap": entry.record["batch_cap"]}
    rows = []
    for start, told in zip(STARTS, starts, strict=False):
        lasted = {one["phase"]: one["duration_s"] for one in told["phases"]} or {"ready": told["start_s"]}
        first_ms = _first_ttft_ms(entry, "cold") if start == STARTS[-1] else None
        if first_ms is not None:
            lasted[FIRST] = first_ms / 1000
        for place, (phase, duration_s) in enumerate(lasted.items()):
            rows.append({**named, "start": start, "phase": phase, "place": place, "duration_s": duration_s})
    return rows


def _first_ttft_ms(entry: Entry, window: str) -> float | None:
    """Return the time to first token of the request that a window sent first."""
    if not (entry.folder / f"{window}.requests.csv.gz").exists():
        return None
    requests = entry.series(f"{window}.requests").dropna(subset=["sent_s", "first_token_s"])
    if requests.empty:
        return None
    first = requests.sort_values("sent_s", kind="stable").iloc[0]
    return float(first["first_token_s"] - first["sent_s"]) * 1000
