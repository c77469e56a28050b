"""The tables of a load test: its points, and every point over time."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from memgap.canonical import canonical_json
from memgap.declared.tables import TableSpec
from memgap.errors import DAMAGE
from memgap.kinds.locust import locust_csv
from memgap.kinds.locust.comparison import comparison_table, definitions_table
from memgap.kinds.locust.page import comparison_page
from memgap.kinds.locust.point import LOCUST
from memgap.tables.columns import Columns
from memgap.tables.entries import Entry, entries
from memgap.tables.inputs import Inputs
from memgap.tables.over_time import time_weighted
from memgap.tables.requests import events_of, requests_of, telemetry_of

SUMMARY = (
    *("duration_s", "requests_sent", "requests_completed", "requests_failed", "prompt_tokens", "output_tokens"),
    *("request_throughput_req_s", "output_throughput_tok_s", "total_throughput_tok_s"),
    *(f"ttft_{name}_ms" for name in ("mean", "median", "p95", "p99")),
    *(f"e2e_{name}_ms" for name in ("mean", "median", "p95", "p99")),
    *("tpot_mean_ms", "itl_mean_ms", "itl_p99_ms", "server_ttft_mean_ms", "server_e2e_mean_ms", "server_itl_mean_ms"),
    *("prefix_cache_queries", "prefix_cache_hits", "mean_running_reqs", "kv_cache_usage_max_fraction"),
    *("gpu_mem_used_max_bytes", "server_rss_max_bytes", "server_cpu_mean_cores", "preemptions"),
)
CSV = {
    "Requests/s": "locust_requests_per_s",
    "Average Response Time": "locust_response_mean_ms",
    "50%": "locust_response_p50_ms",
    "95%": "locust_response_p95_ms",
    "99%": "locust_response_p99_ms",
}
"""What Locust's CSV says of the requests."""
CSV_TTFT = {
    "Average Response Time": "locust_ttft_mean_ms",
    "50%": "locust_ttft_p50_ms",
    "95%": "locust_ttft_p95_ms",
    "99%": "locust_ttft_p99_ms",
}
POINT_COLUMNS = (
    *("loadtest", "experiment", "key", "session", "server_start", "client", "repeat", "model", "engine"),
    *("engine_version", "locust_version", "users", "spawn_rate_users_s", "prompts", "stream", "output_tokens_asked"),
    *("requests", "server_args", "status", "flags", "verdict", "error_kind", "error_message", "date_utc", "device"),
    *("gpu_name", "driver", "source", *SUMMARY, "prefix_hit_fraction", "client_cpu_cores", "client_cpu_us_per_token"),
    *("client_loop_lag_p99_ms", *CSV.values(), *CSV_TTFT.values(), "locust_left_out"),
)
TIMELINE_COLUMNS = (
    *("experiment", "session", "key", "client", "repeat", "time_s", "bin_s", "in_flight_requests", "requests_per_s"),
    *("failures_per_s", "response_time_mean_ms", "ttft_mean_ms", "output_tok_s", "gpu_mem_used_bytes", "rss_bytes"),
    *("prefix_hit_fraction", "locust_requests_per_s"),
)
MOST_BINS, FEW_BINS, REQUESTS_PER_BIN = 40, 10, 5
BINS_S = (0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0)
TABLE = TableSpec(
    name="loadtest",
    title="Tables of a load test",
    of="loadtest",
    plan="group",
    writes={
        "loadtest": "results/tables/{group}.loadtest.csv",
        "timeline": "results/tables/{group}.timeline.csv",
        "comparison": "results/tables/{group}.comparison.csv",
        "page": "results/tables/{group}.comparison.html",
        "definitions": "results/tables/{group}.definitions.csv",
    },
    wanted=("loadtest", "timeline", "comparison", "page", "definitions"),
    shown=("comparison", "page", "definitions"),
    category="Load tests",
    digits=0,
    caption="""
A load test: Locust's users against one server, and the same requests from the load generator on the same server, in
turns. The comparison holds paired differences with 95 % intervals, and what Locust reports of its own runs against
what follows from their single requests.
""",
)
_TEXT = ("experiment", "session", "key", "client", "status", "error_kind", "flags", "verdict", "source", "engine")
READ = {
    "loadtest": Columns("a table of a load test", POINT_COLUMNS, text=_TEXT),
    "timeline": Columns("a table of a load test", TIMELINE_COLUMNS, text=("experiment", "session", "key", "client")),
}


def make(inputs: Inputs) -> dict[str, pd.DataFrame | str]:
    """Return the tables of the load test of the inputs' plan, and their page."""
    points = points_table(inputs.plan, inputs.points)
    comparison, definitions = comparison_table(points), definitions_table(inputs.plan, inputs.points)
    return {
        "loadtest": points,
        "timeline": timeline_table(inputs.plan, inputs.points),
        "comparison": comparison,
        "definitions": definitions,
        "page": comparison_page(inputs.plan["sweep"], points, comparison, definitions),
    }


def points_table(plan: Mapping[str, Any], points: Path) -> pd.DataFrame:
    """Return one row a point of a load test's plan, those that failed or are missing too."""
    rows = []
    for entry in entries(plan, points):
        try:
            rows.append({"loadtest": plan["sweep"], **_row(entry)})
        except DAMAGE as error:
            rows.append({"loadtest": plan["sweep"], **_row(entry.garbled(error))})
    return pd.DataFrame(rows, columns=list(POINT_COLUMNS))


def timeline_table(plan: Mapping[str, Any], points: Path) -> pd.DataFrame:
    """Return every point in equal slices of its window, as many as `MOST_BINS` at most."""
    tables = []
    for entry in entries(plan, points):
        point = entry.point
        if point is None or not (entry.folder / "requests.csv.gz").exists() or not point["window"]["duration_s"] > 0:
            continue
        named = {**entry.names, "client": point["record"]["loadtest"]["client"], "repeat": point["record"]["repeat"]}
        tables.append(_timeline(point, entry.folder).assign(**named))
    joined = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    return joined.reindex(columns=list(TIMELINE_COLUMNS))


def _row(entry: Entry) -> dict[str, Any]:
    record, point = entry.record, entry.point
    test = record["loadtest"]
    row: dict[str, Any] = {
        **entry.declared,
        "client": test["client"],
        "locust_version": test.get("locust"),
        **{name: test.get(name) for name in ("users", "spawn_rate_users_s", "prompts", "stream")},
        "output_tokens_asked": test["output_tokens"],
        "requests": record["load"]["requests"],
        "server_args": canonical_json(record["server"]["args"]),
        **entry.outcome,
    }
    if point is None:
        return row
    summary, client = point["summary"], point.get("client", {})  # of the whole window, as Locust's own numbers are
    row |= {"server_start": point.get("server_start"), **{name: summary.get(name) for name in SUMMARY}}
    if summary.get("prefix_cache_queries"):
        row["prefix_hit_fraction"] = summary["prefix_cache_hits"] / summary["prefix_cache_queries"]
    if client:
        row["client_cpu_cores"] = client["cpu_fraction"]
        row["client_loop_lag_p99_ms"] = client["loop_lag_p99_ms"]
        if client["tokens"]:
            cpu_s = client["cpu_fraction"] * summary.get("duration_s", 0.0)
            row["client_cpu_us_per_token"] = cpu_s / client["tokens"] * 1e6
    if test["client"] == LOCUST:
        for names, kind in ((CSV, locust_csv.REQUESTS), (CSV_TTFT, locust_csv.TTFT)):
            said = locust_csv.stats(entry.folder, kind)
            row |= {column: said.get(name) for name, column in names.items()}
        row["locust_left_out"] = locust_csv.left_out(entry.folder) + point.get("locust", {}).get("left_out", 0)
    return row


def _timeline(point: Mapping[str, Any], folder: Path) -> pd.DataFrame:
    duration_s = float(point["window"]["duration_s"])
    requests, telemetry = requests_of(folder), telemetry_of(folder)
    bin_s = slice_s(duration_s, int((requests["status"] == "ok").sum()))
    edges = np.arange(0.0, duration_s + bin_s, bin_s)
    end, ok = requests["end_s"], requests["status"] == "ok"
    came = requests["end_s"].notna()
    sent_s, end_s = requests["sent_s"].dropna().to_numpy(), end.dropna().to_numpy()
    events = events_of(folder)
    rows: dict[str, Any] = {
        "time_s": edges[:-1],
        "bin_s": bin_s,
        "in_flight_requests": time_weighted(sent_s, edges) - time_weighted(end_s, edges),
        "requests_per_s": np.histogram(end[ok], edges)[0] / bin_s,
        "failures_per_s": np.histogram(end[came & ~ok], edges)[0] / bin_s,
        "response_time_mean_ms": _mean_by(end[ok], (end - requests["sent_s"])[ok] * 1e3, edges),
        "ttft_mean_ms": _mean_by(
            requests["first_token_s"][ok], (requests["first_token_s"] - requests["sent_s"])[ok] * 1e3, edges
        ),
        "output_tok_s": np.histogram(events["time_s"], edges, weights=events["tokens"])[0] / bin_s,
        "prefix_hit_fraction": _hit_fraction(telemetry, edges),
    }
    for column in ("gpu_mem_used_bytes", "rss_bytes"):
        values = telemetry[column] if column in telemetry else pd.Series(np.nan, index=telemetry.index)
        rows[column] = _mean_by(telemetry["time_s"], values, edges)
    lines = locust_csv.history(folder, locust_csv.REQUESTS, float(point["window"]["start_unix_s"]))
    said = pd.DataFrame(lines, columns=["time_s", "Requests/s"])
    rows["locust_requests_per_s"] = _mean_by(said["time_s"], said["Requests/s"], edges)
    return pd.DataFrame(rows)


def slice_s(duration_s: float, completed: int) -> float:
    """Return the length of a window's slices: `MOST_BINS` of them at most, and so long that each has some requests to
    show a rate by, as long as `FEW_BINS` are left.
    """
    telling = min(REQUESTS_PER_BIN * duration_s / max(completed, 1), duration_s / FEW_BINS)
    least = max(duration_s / MOST_BINS, telling)
    return next((one for one in BINS_S if one >= least), BINS_S[-1])


def _mean_by(time_s: Any, values: Any, edges: Any) -> Any:
    """Return the mean of values by slice of time, not a number where there is none."""
    moments, numbers = np.asarray(time_s, dtype=np.float64), np.asarray(values, dtype=np.float64)
    known = ~(np.isnan(moments) | np.isnan(numbers))
    counts, _ = np.histogram(moments[known], edges)
    sums, _ = np.histogram(moments[known], edges, weights=numbers[known])
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _hit_fraction(telemetry: pd.DataFrame, edges: Any) -> Any:
    """Return by slice the share of the queried prompt tokens that the engine's prefix cache held: the change of its
    counters between the samples before the slice's edges."""
    names = ["prefix_cache_hits", "prefix_cache_queries"]
    if not set(names) <= set(telemetry.columns):
        return np.full(len(edges) - 1, np.nan)
    known = telemetry.dropna(subset=names)
    if known.empty:
        return np.full(len(edges) - 1, np.nan)
    place = np.clip(np.searchsorted(known["time_s"].to_numpy(), edges, side="right") - 1, 0, len(known) - 1)
    hits, queries = (np.diff(known[name].to_numpy(dtype=np.float64)[place]) for name in names)
    return np.where(queries > 0, hits / np.maximum(queries, 1.0), np.nan)
