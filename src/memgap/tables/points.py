"""The tidy table of a sweep: one row a point, units in the column names, failures included."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from memgap.canonical import canonical_json
from memgap.declared.tables import TableSpec
from memgap.engine.given import GivenFlags
from memgap.engine.held import held_of
from memgap.errors import DAMAGE
from memgap.foreign.files import kept_rows
from memgap.load.steady import STEADY_COLUMNS
from memgap.roofline.limits import utilization
from memgap.stats.averaging import AVERAGED, STEADY, WINDOW, averaging_of, of_window, value
from memgap.tables.columns import Columns
from memgap.tables.derived import derived
from memgap.tables.entries import Entry, entries
from memgap.tables.inputs import Inputs
from memgap.tables.pages import table_page
from memgap.tables.starts import START_COLUMNS, start_columns

TEXT_COLUMNS = (
    "sweep",
    "experiment",
    "key",
    "session",
    "model",
    "engine",
    "engine_version",
    "device",
    "gpu_name",
    "driver",
    "cap_side",
    "dataset",
    "dtype",
    "arrival",
    "status",
    "flags",
    "verdict",
    "limit",
    "verdict_reasons",
    "error_kind",
    "error_message",
    "date_utc",
    "server_args",
    "mps",
    "source",
    "averaging",
    "of_window",
)
COUNT_COLUMNS = ("batch_cap", "repeat", "requests", "replicas", "gpus")

_STATISTICS = ("mean", "median", "std", "p90", "p95", "p99", "p999")
SUMMARY_COLUMNS = (
    "duration_s",
    "requests_sent",
    "requests_completed",
    "requests_failed",
    "prompt_tokens",
    "output_tokens",
    "output_tokens_failed",
    "requests_ended",
    "requests_cut",
    "request_throughput_req_s",
    "output_throughput_tok_s",
    "total_throughput_tok_s",
    *(f"{metric}_{statistic}_ms" for metric in ("ttft", "tpot", "itl", "e2e") for statistic in _STATISTICS),
    *(
        f"{metric}_{statistic}_ms"
        for metric in ("itl_chunk", "normalized_latency", "ttft_text", "ttft_answer")
        for statistic in ("mean", "median", "p99")
    ),
    *(f"{metric}_intended_{statistic}_ms" for metric in ("ttft", "e2e") for statistic in _STATISTICS),
    "tokens_per_chunk_mean",
    "mean_running_reqs",
    "max_running_reqs",
    "engine_full_throughput_tok_s",
    "mean_waiting_reqs",
    "kv_cache_usage_mean_fraction",
    "kv_cache_usage_max_fraction",
    "preemptions",
    "server_prompt_tokens",
    "server_output_tokens",
    *(
        f"server_{metric}_{statistic}_ms"
        for metric in ("ttft", "itl", "tpot", "e2e", "queue", "prefill", "decode")
        for statistic in ("mean", "p99_low", "p99_high")
    ),
    "requests_miscounted",
    "prefix_cache_queries",
    "prefix_cache_hits",
    "gpu_util_mean_fraction",
    "gpu_mem_used_max_bytes",
    "gpu_power_mean_w",
    "gpu_sm_clock_mean_mhz",
    "energy_j",
    "energy_per_output_token_j",
    "cpu_util_mean_fraction",
    "server_cpu_mean_cores",
    "api_server_cpu_mean_cores",
    "engine_cpu_mean_cores",
    "gpu_throttled_fraction",
    "gpu_foreign_processes_max",
    "server_rss_max_bytes",
    "telemetry_samples",
    *("kv_transfers", "kv_transfers_failed", "kv_transfer_bytes", "kv_transfer_mean_ms", "kv_transfer_bytes_s"),
    "prefill_e2e_mean_ms",
    *("spec_drafts", "spec_draft_tokens", "spec_accepted_tokens", "spec_accepted_fraction", "spec_length_mean"),
    "choices_completed",
    "tokens_per_choice_mean",
    *STEADY_COLUMNS,
)
DERIVED_COLUMNS = ("hit_fraction", "itl_p99_over_p50", "kv_waste_fraction")
ENGINE_COLUMNS = (
    "kv_pool_tokens",
    "kv_pool_bytes",
    "kv_block_tokens",
    "num_gpu_blocks",
    "weights_bytes",
    "graph_memory_bytes",
    "gpu_memory_utilization",
    "max_model_len",
    "start_s",
)
HARDWARE_COLUMNS = ("gpu_memory_bytes", "host_memory_bytes")
CLIENT_COLUMNS = ("loop_lag_p99_ms", "cpu_fraction", "coalesced_fraction")
LIMIT_COLUMNS = ("mbu_fraction", "mfu_fraction")
WINDOW_COLUMNS = tuple(f"window_{name}" for name in AVERAGED)
"""Of the whole window, whatever `averaging` says that the columns without the prefix are of."""
NUMBER_COLUMNS = (
    "rate_req_s",
    *SUMMARY_COLUMNS,
    *DERIVED_COLUMNS,
    *ENGINE_COLUMNS,
    *START_COLUMNS,
    *HARDWARE_COLUMNS,
    "kv_bytes_per_token",
    *LIMIT_COLUMNS,
    *(f"client_{name}" for name in CLIENT_COLUMNS),
    *WINDOW_COLUMNS,
)
COLUMNS = (*TEXT_COLUMNS, *COUNT_COLUMNS, *NUMBER_COLUMNS)
FOREIGN = {"cap_side": "client", "flags": "", "averaging": WINDOW}
"""What is true of every row from a file of another tool (`memgap import`)."""


TABLE = TableSpec(
    name="points",
    title="Points of a sweep",
    of="sweep",
    plan="group",
    writes={
        "points": "results/tables/{group}.parquet",
        "csv": "results/tables/{group}.csv",
        "page": "results/tables/{group}.html",
    },
    wanted=("points", "csv", "page"),
    shown=("csv", "page"),
    caption="""
All points of the sweep {group}, one row each, units in the column names. Failed points are rows too: see the columns
status, error_kind and error_message. Throughputs and latencies are of the steady part of the run where `averaging`
says so, without those that `of_window` lists; the columns `window_*` are of the whole window.
""",
)


class _Points(Columns):
    def typed(self, table: pd.DataFrame) -> pd.DataFrame:
        return as_table(table.astype(object).where(table.notna(), None).to_dict("records"))


READ = {"points": _Points("a table of points", COLUMNS, text=TEXT_COLUMNS)}


def make(inputs: Inputs) -> dict[str, pd.DataFrame | str]:
    """Return the table of the sweep of the inputs' plan, and its page."""
    table = collect(inputs.plan, inputs.points)
    return {"points": table, "csv": table, "page": table_page(table)}


def collect(plan: Mapping[str, Any], points: Path) -> pd.DataFrame:
    """Return the table of a sweep plan: the columns of `COLUMNS`, one row a point in the plan's order.

    Points that are missing, garbled or spared by a stop rule are rows too, see `memgap.tables.entries.Entry`.
    Behind them stand results of other tools that were imported beside the sweep. Raises UserError where `plan` is none.
    """
    found, foreign = entries(plan, points), kept_rows(points.parent, plan["sweep"])
    return collected(plan["sweep"], found, plan.get("averaging", STEADY), foreign)


def collected(
    name: str, found: Sequence[Entry], averaging: str, imported: Sequence[Mapping[str, Any]] = ()
) -> pd.DataFrame:
    """Return the table of entries of a sweep or lab of a name, one row each in their order, then `imported` ones."""
    rows = [_row(name, entry, averaging) for entry in found]
    foreign = [{**FOREIGN, **row} for row in imported]
    try:
        return as_table([*(row for row, _ in rows), *foreign])
    except DAMAGE:  # a value of some point is of another type than its column
        return as_table([*(_of_its_types(row, entry) for row, entry in rows), *foreign])


def as_table(rows: Sequence[Mapping[Any, Any]]) -> pd.DataFrame:
    """Return rows as a table with all columns and their types, also where there is no row."""
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.astype(
        {
            **dict.fromkeys(TEXT_COLUMNS, "string"),
            **dict.fromkeys(COUNT_COLUMNS, "Int64"),
            **dict.fromkeys(NUMBER_COLUMNS, "float64"),
        }
    ).copy()


def read_table(path: Path) -> pd.DataFrame:
    """Return a table of points from its file (.parquet or .csv); raises UserError where it is none."""
    return READ["points"].read(path)


def _row(sweep: str, entry: Entry, averaging: str) -> tuple[dict[str, Any], Entry]:
    row = {"sweep": sweep, **entry.declared, **_declared(entry.record)}
    try:
        return {**row, **(_measured(entry, averaging) if entry.point else entry.outcome)}, entry
    except DAMAGE as error:
        return {**row, **entry.garbled(error).outcome}, entry


def _of_its_types(row: dict[str, Any], entry: Entry) -> dict[str, Any]:
    try:
        as_table([row])
    except DAMAGE as error:
        declared = {name: row.get(name) for name in ("sweep", *entry.names, "model", "batch_cap")}
        return {**declared, **entry.garbled(error).outcome}
    return row


def _declared(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "cap_side": record["cap_side"],
        "batch_cap": record["batch_cap"],
        "dataset": record["dataset"]["name"],
        "arrival": record["load"]["arrival"],
        "requests": record["load"]["requests"],
        "replicas": record["server"]["replicas"],
        "gpus": GivenFlags.of(record).gpus,
        "rate_req_s": record["load"].get("rate_req_s"),
        "mps": "yes" if record["server"]["mps"] else "no",
        "server_args": canonical_json(record["server"]["args"]),
        "kv_bytes_per_token": held_of(record).kv_bytes_per_token,
    }


def in_window(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of points with the averages over the whole window in place of those of the steady part."""
    told = table["averaging"].notna()
    pairs = zip(AVERAGED, WINDOW_COLUMNS, strict=True)
    whole = {name: table[column].where(told, table[name]) for name, column in pairs}
    averaging = table["averaging"].where(~told, WINDOW)
    return table.assign(**whole, averaging=averaging, of_window=None).astype({"of_window": "string"}).copy()


def _measured(entry: Entry, averaging: str) -> dict[str, Any]:
    point = entry.point or {}
    summary, client, verdict = point["summary"], point.get("client", {}), point.get("verdict", {})
    rated = any(name in summary for name in AVERAGED)
    return {
        **utilization(point),
        **entry.outcome,
        "limit": verdict.get("limit"),
        "verdict_reasons": "; ".join(one["text"] for one in verdict.get("reasons", [])) or None,
        **{name: value(summary, name, averaging) for name in SUMMARY_COLUMNS},
        **{column: summary.get(name) for name, column in zip(AVERAGED, WINDOW_COLUMNS, strict=True)},
        "averaging": averaging_of(summary, averaging) if rated else None,
        "of_window": of_window(summary, averaging),
        **derived(entry, point, averaging),
        **{name: point["engine"].get(name) for name in ENGINE_COLUMNS},
        **start_columns(point["engine"]),
        **{name: point["hardware"].get(name) for name in HARDWARE_COLUMNS},
        **{f"client_{name}": client.get(name) for name in CLIENT_COLUMNS},
    }
