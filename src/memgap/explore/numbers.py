"""What the page to explore computes with: all that the advisor's rule needs of each model, as JSON can hold it.

The memory of every cap is the advisor's own; the page applies the rule alone (`rule.js`), which is why a bound that
nobody configured needs no measurement and no Python.
"""

import base64
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from memgap.advisor.bca import Profile
from memgap.advisor.flags import advised_flags
from memgap.advisor.report import (
    LATENCIES,
    THROUGHPUT,
    advice_for,
    flag_names,
    memory_at,
    model_rows,
    profile_of,
)
from memgap.advisor.stability import SEED, draws_of
from memgap.engine.flags import flag_list
from memgap.stats.intervals import column_interval
from memgap.tables.fate import GOOD, fate, replicated
from memgap.tuning.formulas import price

OUTPUT = "output_throughput_tok_s"
METRICS = {
    THROUGHPUT: "Throughput, prompt and output (tok/s)",
    OUTPUT: "Output throughput (tok/s)",
    "itl_mean_ms": "Inter-token latency, mean (ms)",
    "itl_p99_ms": "Inter-token latency, 99th percentile (ms)",
    "tpot_mean_ms": "Time per output token, mean (ms)",
    "ttft_mean_ms": "Time to first token, mean (ms)",
    "ttft_p99_ms": "Time to first token, 99th percentile (ms)",
    "e2e_mean_ms": "End-to-end latency, mean (ms)",
    "kv_cache_usage_max_fraction": "KV cache in use at most (share of the pool)",
    "mean_running_reqs": "Requests running, mean",
    "energy_per_output_token_j": "Energy per output token (J)",
}
"""What can be drawn over the cap."""
SETTINGS = (
    *("engine", "engine_version", "driver", "dtype", "gpus", "replicas", "dataset", "cap_side", "arrival"),
    *("rate_req_s", "requests", "repeat", "averaging", "source", "date_utc", "key"),
)
"""What is told of a point beside its command line."""
BEND = 0.20
"""A curve has bent where doubling the cap adds less than this share of throughput."""


def model_numbers(
    table: pd.DataFrame, model: str, settings: Mapping[str, Any], twin: pd.DataFrame | None = None
) -> dict[str, Any]:
    """Return what the page shows of one model of a sweep's table.

    `settings` is the plan `explore`: the advisor's, and `usd_per_gpu_hour`. `twin` is the model's table of predictions.
    """
    rows = model_rows(table, model)
    rows = rows[~replicated(rows)]
    advice = advice_for(table, model, settings)
    good = rows[fate(rows) == GOOD]
    profile = profile_of(rows, settings["latency"])
    gpu_name = next(iter(rows["gpu_name"].dropna()), None)
    known = [name for name in LATENCIES if good[name].notna().any()]
    return {
        "model": model,
        "sweep": str(rows["sweep"].iloc[0]),
        "gpu": gpu_name or "CPU",
        "usd_per_gpu_hour": price({"gpu_name": gpu_name}, settings["usd_per_gpu_hour"]),
        "advice": advice,
        "bend": bend(profile),
        "profiles": {name: [_cap(one) for one in profile_of(rows, name)] for name in known},
        "draws": _draws(profile, advice["stability"]["draws"]),
        "caps": {str(cap): _at_cap(own, int(str(cap)), settings) for cap, own in good.groupby("batch_cap")},
        "means": {name: _means(good, name) for name in METRICS if good[name].notna().any()},
        "points": [_point(row, use, settings) for (_, row), use in zip(rows.iterrows(), fate(rows), strict=True)],
        "twin": _twin(twin, rows),
    }


def bend(profile: Sequence[Profile]) -> int | None:
    """Return the cap from which on doubling it adds less than `BEND` of throughput; None where that is nowhere seen."""
    known = [(one.batch_cap, one.throughput_tok_s) for one in profile if not one.excluded and one.throughput_tok_s]
    last = None
    for (cap, here), (above, there) in reversed(list(pairwise(known))):
        if (there / here) ** (1 / math.log2(above / cap)) - 1 >= BEND:
            break
        last = cap
    return last


def as_json(numbers: Any) -> str:
    """Return numbers as JSON that may stand in a page; what is not finite is null."""
    return json.dumps(_plain(numbers), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _cap(one: Profile) -> dict[str, Any]:
    throughput, latency = one.throughput_interval, one.latency_interval
    return {
        "batch_cap": one.batch_cap,
        "throughput_tok_s": one.throughput_tok_s,
        "latency_ms": one.latency_ms,
        "excluded": one.excluded,
        "throughput_interval": [throughput.low, throughput.high] if throughput else None,
        "latency_interval": [latency.low, latency.high] if latency else None,
    }


def _draws(profile: Sequence[Profile], draws: int) -> dict[str, Any]:
    """Return the stability's draws by cap: both columns as 32-bit floats in base 64, null where all are as measured."""
    found = draws_of(profile, draws, SEED) if draws else {}
    return {
        str(cap): [
            None if np.ptp(column) == 0 else base64.b64encode(column.astype("<f4").tobytes()).decode()
            for column in pairs.T
        ]
        for cap, pairs in found.items()
    }


def _at_cap(own: pd.DataFrame, cap: int, settings: Mapping[str, Any]) -> dict[str, Any]:
    names, need = flag_names(own, settings), memory_at(own, settings)
    flags = advised_flags(json.loads(str(own["server_args"].iloc[0])), cap, need, names)
    output = own[OUTPUT].mean() / own["gpus"].fillna(1).astype(float).iloc[0]
    return {
        "output_tok_s_per_gpu": output,
        "command": f"{names.command} {shlex.join(flags)}",
        "memory": asdict(need),
    }


def _means(good: pd.DataFrame, name: str) -> list[dict[str, Any]]:
    found = []
    for cap, own in good.dropna(subset=[name]).groupby("batch_cap"):
        interval = column_interval(own, name)
        bounds = (interval.low, interval.high) if interval else (None, None)
        found.append({"cap": int(str(cap)), "value": own[name].mean(), "low": bounds[0], "high": bounds[1]})
    return found


def _point(row: "pd.Series[Any]", use: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    given = row["server_args"]
    flags = flag_list(json.loads(given)) if isinstance(given, str) else []
    command = flag_names(row.to_frame().T, settings).command
    return {
        "cap": row["batch_cap"],
        "use": use,
        **{name: row[name] for name in ("status", "verdict", "verdict_reasons", "limit", "flags", "error_message")},
        "settings": {name: row[name] for name in SETTINGS if not pd.isna(row[name])},
        "command": f"{command} {shlex.join(flags)}".strip(),
        "values": {name: row[name] for name in METRICS if not pd.isna(row[name])},
    }


def _twin(twin: pd.DataFrame | None, rows: pd.DataFrame) -> dict[str, list[Any]]:
    """Return by metric one prediction a cap, of the first of its repeats, with the 90 % interval."""
    if twin is None:
        return {}
    own = twin[twin["key"].isin(rows["key"]) & twin["quantity"].isin(METRICS)].sort_values(["batch_cap", "repeat"])
    first = own.drop_duplicates(["quantity", "batch_cap"]).rename(columns={"batch_cap": "cap", "predicted": "value"})
    kept = ["cap", "value", "low", "high", "measured", "role"]
    return {str(name): part[kept].to_dict("records") for name, part in first.groupby("quantity")}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    if value is pd.NA or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value
