"""The table of memory over time: what each point's process took from its start on, split into weights and KV cache."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from memgap.engine.held import held_of
from memgap.kinds.static.kv import startup_of, steps_of, used_tokens_at
from memgap.kinds.static.point import is_static
from memgap.tables.requests import NAMED, events_of, measured_points, requests_of, telemetry_of

COLUMNS = (
    *(*NAMED, "engine", "device", "phase", "time_s"),
    *("rss_bytes", "gpu_mem_used_bytes", "allocated_bytes", "reserved_bytes"),
    *("weights_bytes", "kv_held_bytes", "kv_in_blocks_bytes", "kv_used_bytes"),
)
PHASES = ("load", "inference")


def memory_table(plan: Mapping[str, Any], points: Path) -> pd.DataFrame:
    """Return one row a sample of every measured point.

    `time_s` counts from the engine's start; the window of a point follows at once, whatever was measured in between.
    `kv_held_bytes` is what the cache keeps from anything else: a server's whole pool, the tensors of a static batch.
    `kv_in_blocks_bytes` is the part of a pool whose blocks are given to requests, `kv_used_bytes` the tokens of running
    requests. `rss_bytes` is host memory, `gpu_mem_used_bytes` what NVML says of the whole GPU, `allocated_bytes` and
    `reserved_bytes` torch's allocator where the engine tells it. What is not known at a moment is empty.
    """
    tables = []
    for named, folder, point in measured_points(plan, points):
        if point["status"] != "ok":
            continue
        load = startup_of(folder).assign(phase="load")
        ready_s = float(point["engine"].get("start_s") or 0.0)
        load = load[load["time_s"] <= ready_s]
        inference = _inference(point, folder).assign(phase="inference")
        inference["time_s"] += ready_s
        table = pd.concat([one for one in (load, inference) if len(one)], ignore_index=True)
        tables.append(
            table.assign(**named, engine=point["record"]["engine"]["package"], device=point["hardware"]["device"])
        )
    if not tables:
        return pd.DataFrame(columns=list(COLUMNS))
    return pd.concat(tables, ignore_index=True).reindex(columns=list(COLUMNS))


def _inference(point: Mapping[str, Any], folder: Path) -> pd.DataFrame:
    record, duration_s = point["record"], float(point["window"]["duration_s"])
    telemetry = telemetry_of(folder)
    rows = telemetry[telemetry["time_s"].between(0.0, duration_s)].reindex(
        columns=["time_s", "rss_bytes", "gpu_mem_used_bytes", "kv_cache_usage_fraction"]
    )
    rows = rows.reset_index(drop=True)
    requests = requests_of(folder)
    token_bytes = held_of(record).kv_bytes_per_token or np.nan
    times_s = rows["time_s"].to_numpy(dtype=np.float64)
    rows["weights_bytes"] = point["engine"].get("weights_bytes")
    if is_static(record):
        # a static batch keeps a request until the batch ends, but its tokens are of use only until its own last one
        steps = steps_of(folder).sort_values("time_s")
        events = _tokens_of_steps(steps, requests, record["batch_cap"])
        requests = requests.assign(last_token_s=requests["index"].map(events.groupby("request")["time_s"].max()))
        return _with_steps(rows, steps, times_s).assign(
            kv_used_bytes=used_tokens_at(times_s, requests, events) * token_bytes
        )
    pool = point["engine"].get("kv_pool_bytes")
    rows["kv_held_bytes"] = pool
    rows["kv_in_blocks_bytes"] = rows["kv_cache_usage_fraction"] * pool if pool else np.nan
    rows["kv_used_bytes"] = used_tokens_at(times_s, requests, events_of(folder)) * token_bytes
    return rows.drop(columns="kv_cache_usage_fraction")


def _tokens_of_steps(steps: pd.DataFrame, requests: pd.DataFrame, size: int) -> pd.DataFrame:
    """Return when each token that was asked for was made: a step makes one of every request of its batch."""
    told = requests[["index", "output_tokens_seen"]].assign(batch=requests["index"] // size)
    made = steps[["batch", "time_s"]].assign(nth=steps.groupby("batch").cumcount()).merge(told, on="batch")
    return made[made["nth"] < made["output_tokens_seen"]].rename(columns={"index": "request"})


def _with_steps(rows: pd.DataFrame, steps: pd.DataFrame, times_s: "np.typing.NDArray[np.float64]") -> pd.DataFrame:
    """Return the samples with the cache and the allocator as of the last step before each."""
    place = np.searchsorted(steps["time_s"].to_numpy(dtype=np.float64), times_s, side="right") - 1
    known = place >= 0
    for column, source in (
        ("kv_held_bytes", "kv_bytes"),
        ("allocated_bytes", "allocated_bytes"),
        ("reserved_bytes", "reserved_bytes"),
    ):
        values = steps[source].to_numpy(dtype=np.float64)
        rows[column] = np.where(known, values[np.maximum(place, 0)] if len(values) else np.nan, np.nan)
    return rows.drop(columns="kv_cache_usage_fraction")
