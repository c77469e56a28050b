"""The table of a comparison: one row a point, with the same columns for every engine."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from memgap.errors import DAMAGE
from memgap.kinds.static.point import is_static
from memgap.tables.entries import Entry, entries

COLUMNS = (
    *("sweep", "experiment", "key", "session", "model", "engine", "engine_version", "dtype", "device", "gpu_name"),
    *("batching", "kv_cache", "batch_cap", "repeat", "requests", "status", "verdict", "error_message"),
    *("duration_s", "output_tokens", "computed_output_tokens", "useful_fraction", "output_throughput_tok_s"),
    *("request_throughput_req_s", "mean_running_reqs", "ttft_mean_ms", "itl_mean_ms", "e2e_mean_ms", "e2e_p99_ms"),
    *("start_s", "load_s", "weights_bytes", "kv_pool_bytes", "allocated_peak_bytes", "reserved_peak_bytes"),
    *("gpu_mem_used_max_bytes", "server_rss_max_bytes", "energy_j", "driver", "date_utc", "source"),
)
SUMMARY = (
    *("duration_s", "output_tokens", "output_throughput_tok_s", "request_throughput_req_s", "mean_running_reqs"),
    *("ttft_mean_ms", "itl_mean_ms", "e2e_mean_ms", "e2e_p99_ms", "allocated_peak_bytes", "reserved_peak_bytes"),
    *("gpu_mem_used_max_bytes", "server_rss_max_bytes", "energy_j"),
)


def engines_table(plan: Mapping[str, Any], points: Path) -> pd.DataFrame:
    """Return one row a point of a sweep plan in its order; failed and missing points are rows too.

    `output_tokens` and the throughputs are of tokens that were asked for; `computed_output_tokens` also holds those
    that a static batch makes for requests that have ended. `batching` is "static" or "continuous". All values are of
    the whole window: static batches have no steady part, and both engines have the same requests to answer.
    """
    rows = []
    for entry in entries(plan, points):
        try:
            rows.append({"sweep": plan["sweep"], **_row(entry)})
        except DAMAGE as error:
            rows.append({"sweep": plan["sweep"], **_row(entry.garbled(error))})
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _row(entry: Entry) -> dict[str, Any]:
    record, point = entry.record, entry.point
    static = is_static(record)
    row = {
        **entry.declared,
        "batching": "static" if static else "continuous",
        "kv_cache": record["server"]["args"]["kv-cache"] if static else "paged",
        "batch_cap": record["batch_cap"],
        "requests": record["load"]["requests"],
        **entry.outcome,
    }
    if point is None:
        return row
    summary = point["summary"]
    computed = summary.get("computed_output_tokens", summary.get("output_tokens"))
    return {
        **row,
        **{name: summary.get(name) for name in SUMMARY},
        "computed_output_tokens": computed,
        "useful_fraction": summary["output_tokens"] / computed if computed else None,
        **{name: point["engine"].get(name) for name in ("start_s", "load_s", "weights_bytes", "kv_pool_bytes")},
    }
