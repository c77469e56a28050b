"""The table of endpoints: one row a point, what a client sees and what the server says where it says something."""

import pandas as pd

from memgap.declared.tables import TableSpec
from memgap.stats.averaging import STEADY, averaging_of, of_window, value
from memgap.tables.columns import Columns
from memgap.tables.entries import Entry, entries
from memgap.tables.inputs import Inputs

METRICS = (
    *("requests_completed", "requests_failed", "prompt_tokens", "output_tokens", "duration_s"),
    *("request_throughput_req_s", "output_throughput_tok_s", "total_throughput_tok_s"),
    *("requests_ended", "requests_cut"),
    *(
        f"{name}_{part}_ms"
        for name in ("ttft", "ttft_text", "ttft_answer", "itl", "tpot", "e2e")
        for part in ("mean", "median", "p99")
    ),
    *("mean_running_reqs", "mean_waiting_reqs", "kv_cache_usage_max_fraction", "preemptions"),
)
NAMED = ("group", "experiment", "key", "session", "url", "model", "engine", "engine_version", "arrival")
AVERAGING = ("averaging", "of_window")
OUTCOME = ("status", "flags", "verdict", "error_kind", "error_message", "date_utc", "device", "gpu_name", "driver")
COLUMNS = (*NAMED, "batch_cap", "rate_req_s", "requests", "repeat", *OUTCOME, "source", *METRICS, *AVERAGING)
TABLE = TableSpec(
    name="endpoint",
    title="Table of endpoints",
    of="endpoints",
    plan="group",
    writes={"endpoint": "results/tables/{group}.endpoint.csv"},
    wanted=("endpoint",),
    shown=("endpoint",),
    category="Endpoints",
    caption="""
A load on a server that was there already, one row a point. Tokens are those that the server counted. What a client
cannot know is empty: the GPU, the pool, often the version. `averaging` says whether throughputs and latencies are of
the steady part or of the whole window.
""",
)
READ = {
    "endpoint": Columns("a table of endpoints", COLUMNS, text=(*NAMED, *OUTCOME, "source", *AVERAGING), numbers=True)
}


def make(inputs: Inputs) -> dict[str, pd.DataFrame | str]:
    """Return the table of the inputs' plan; failed and missing points are rows too."""
    averaging = inputs.plan.get("averaging", STEADY)
    rows = [{"group": inputs.plan["sweep"], **_row(entry, averaging)} for entry in entries(inputs.plan, inputs.points)]
    return {"endpoint": pd.DataFrame(rows, columns=list(COLUMNS))}


def _row(entry: Entry, averaging: str) -> dict[str, object]:
    record, load = entry.record, entry.record["load"]
    row = {
        **entry.declared,
        "url": record["server"]["url"],
        "arrival": load["arrival"],
        "batch_cap": record["batch_cap"],
        "rate_req_s": load["rate_req_s"],
        "requests": load["requests"],
        **entry.outcome,
    }
    if entry.point is None:
        return row
    told = entry.point["engine"]
    row["model"] = told.get("served_model") or row["model"]
    row["engine_version"] = told.get("version") or row["engine_version"]
    summary = entry.point["summary"]
    row |= {"averaging": averaging_of(summary, averaging), "of_window": of_window(summary, averaging)}
    return {**row, **{name: value(summary, name, averaging) for name in METRICS}}
