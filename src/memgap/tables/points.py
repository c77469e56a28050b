"""The tidy table of a sweep: one row a point, units in the column names, failures included."""

import io
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from memgap.canonical import canonical_json
from memgap.errors import DAMAGE, UserError, one_line
from memgap.models.architecture import ModelArchitecture
from memgap.roofline.limits import utilization
from memgap.stats.steady import STEADY_COLUMNS
from memgap.store.atomic import write_bytes, write_text
from memgap.store.points import SPARED, PointStore

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
)
COUNT_COLUMNS = ("batch_cap", "repeat", "requests", "replicas")

_STATISTICS = ("mean", "median", "std", "p90", "p95", "p99", "p999")
SUMMARY_COLUMNS = (
    "duration_s",
    "requests_sent",
    "requests_completed",
    "requests_failed",
    "prompt_tokens",
    "output_tokens",
    "output_tokens_failed",
    "request_throughput_req_s",
    "output_throughput_tok_s",
    "total_throughput_tok_s",
    *(f"{metric}_{statistic}_ms" for metric in ("ttft", "tpot", "itl", "e2e") for statistic in _STATISTICS),
    *(
        f"{metric}_{statistic}_ms"
        for metric in ("itl_chunk", "normalized_latency")
        for statistic in ("mean", "median", "p99")
    ),
    *(f"{metric}_intended_{statistic}_ms" for metric in ("ttft", "e2e") for statistic in _STATISTICS),
    "tokens_per_chunk_mean",
    "mean_running_reqs",
    "max_running_reqs",
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
    *STEADY_COLUMNS,
)
ENGINE_COLUMNS = (
    "kv_pool_tokens",
    "kv_pool_bytes",
    "kv_block_tokens",
    "weights_bytes",
    "gpu_memory_utilization",
    "max_model_len",
    "start_s",
)
HARDWARE_COLUMNS = ("gpu_memory_bytes", "host_memory_bytes")
CLIENT_COLUMNS = ("loop_lag_p99_ms", "cpu_fraction", "coalesced_fraction")
LIMIT_COLUMNS = ("mbu_fraction", "mfu_fraction")
NUMBER_COLUMNS = (
    *SUMMARY_COLUMNS,
    *ENGINE_COLUMNS,
    *HARDWARE_COLUMNS,
    "kv_bytes_per_token",
    *LIMIT_COLUMNS,
    *(f"client_{name}" for name in CLIENT_COLUMNS),
)
COLUMNS = (*TEXT_COLUMNS, *COUNT_COLUMNS, *NUMBER_COLUMNS)


def collect(plan: Mapping[str, Any], points: Path) -> pd.DataFrame:
    """Return the table of a sweep plan: the columns of `COLUMNS`, one row a point in the plan's order.

    A point that is not stored has the status "missing", or "not_needed" with the reason in `error_message` where its
    session's outcome (beside the store, in `sessions`) says so; one that cannot be read "garbled". Raises UserError
    where `plan` is no sweep plan.
    """
    if not {"sweep", "points"} <= plan.keys():
        raise UserError("not a sweep plan: it needs sweep and points; let Snakemake make it again.")
    store = PointStore(points)
    spared = _spared(points.parent / "sessions", {entry["session"] for entry in plan["points"]})
    rows = [_row(plan["sweep"], entry, store, spared) for entry in plan["points"]]
    try:
        return as_table(rows)
    except DAMAGE:  # a value of some point is of another type than its column
        return as_table([_of_its_types(row, store) for row in rows])


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


def write_table(table: pd.DataFrame, parquet: Path, csv: Path) -> None:
    """Write the table in both forms, each whole or not at all."""
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    write_bytes(parquet, buffer.getvalue())
    write_text(csv, table.to_csv(index=False, lineterminator="\n", float_format="%.9g"))


def read_table(path: Path) -> pd.DataFrame:
    """Return a table written by `write_table` (.parquet or .csv); raises UserError where it is none."""
    try:
        table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except DAMAGE as error:
        raise UserError(f"{path}: not a table of points ({error}); let Snakemake make it again.") from error
    missing = [column for column in COLUMNS if column not in table.columns]
    if missing:
        raise UserError(
            f"{path}: not a table of points, the column {missing[0]} is missing; let Snakemake make it again."
        )
    try:
        return as_table(table.astype(object).where(table.notna(), None).to_dict("records"))
    except DAMAGE as error:
        raise UserError(f"{path}: not a table of points ({error}); let Snakemake make it again.") from error


def _spared(folder: Path, sessions: Collection[str]) -> dict[str, str]:
    """Return the keys that the sessions' stop rules spared, with the reason."""
    spared = {}
    for path in (folder / f"{session}.json" for session in sorted(sessions)):
        try:
            points = json.loads(path.read_text(encoding="utf-8"))["points"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        spared.update({one["key"]: one["reason"] for one in points if one["status"] == SPARED})
    return spared


def _row(sweep: str, entry: Mapping[str, Any], store: PointStore, spared: Mapping[str, str]) -> dict[str, Any]:
    record = entry["record"]
    row = {
        "sweep": sweep,
        "experiment": entry["experiment"],
        "key": entry["key"],
        "session": entry["session"],
        **_declared(record),
    }
    outcome = store.folder.parent / "sessions" / f"{entry['session']}.json"
    again = f"with `remeasure: [{entry['key']}]` in the configuration the next run measures it again, and no other"
    try:
        point = store.read(entry["key"])
    except UserError:
        message = f"this point's file in the store is damaged; {again}"
        return {**row, "status": "garbled", "error_kind": "garbled", "error_message": message}
    if point:
        try:
            return {**row, **_measured(point)}
        except DAMAGE as error:
            return _garbled(row, store, error)
    if entry["key"] in spared:
        return {**row, "status": SPARED, "error_message": spared[entry["key"]]}
    if outcome.exists():
        return {**row, "status": "missing", "error_message": f"the point was removed from the store; {again}"}
    return {**row, "status": "missing"}


def _of_its_types(row: dict[str, Any], store: PointStore) -> dict[str, Any]:
    try:
        as_table([row])
    except DAMAGE as error:
        declared = {name: one for name, one in row.items() if name in ("sweep", "experiment", "key", "session")}
        return _garbled({**declared, "model": row.get("model"), "batch_cap": row.get("batch_cap")}, store, error)
    return row


def _garbled(row: Mapping[str, Any], store: PointStore, error: Exception) -> dict[str, Any]:
    said = one_line(f"{store.folder / row['key']}: not a whole point ({type(error).__name__}: {error})")
    return {**row, "status": "garbled", "error_kind": "garbled", "error_message": said}


def _declared(record: Mapping[str, Any]) -> dict[str, Any]:
    architecture = ModelArchitecture.from_dict(record["model"]["architecture"])
    return {
        "model": record["model"]["name"],
        "engine": record["engine"]["package"],
        "engine_version": record["engine"]["version"],
        "cap_side": record["cap_side"],
        "batch_cap": record["batch_cap"],
        "repeat": record["repeat"],
        "dataset": record["dataset"]["name"],
        "dtype": record["model"]["dtype"],
        "arrival": record["load"]["arrival"],
        "requests": record["load"]["requests"],
        "replicas": record["server"]["replicas"],
        "mps": "yes" if record["server"]["mps"] else "no",
        "server_args": canonical_json(record["server"]["args"]),
        "kv_bytes_per_token": architecture.kv_bytes_per_token(record["model"]["dtype"]),
    }


def _measured(point: Mapping[str, Any]) -> dict[str, Any]:
    error = point["error"] or {}
    client = point.get("client", {})
    verdict = point.get("verdict", {})
    return {
        **utilization(point),
        "source": "recorded" if "recorded" in point else "measured",
        "status": point["status"],
        "flags": ";".join(point["flags"]),
        "verdict": verdict.get("verdict"),
        "limit": verdict.get("limit"),
        "verdict_reasons": "; ".join(one["text"] for one in verdict.get("reasons", [])) or None,
        "error_kind": error.get("kind"),
        "error_message": error.get("message"),
        "date_utc": point["provenance"]["date_utc"],
        "device": point["hardware"]["device"],
        "gpu_name": point["hardware"]["gpu_name"],
        "driver": point["hardware"]["driver"],
        **{name: point["summary"].get(name) for name in SUMMARY_COLUMNS},
        **{name: point["engine"].get(name) for name in ENGINE_COLUMNS},
        **{name: point["hardware"].get(name) for name in HARDWARE_COLUMNS},
        **{f"client_{name}": client.get(name) for name in CLIENT_COLUMNS},
    }
