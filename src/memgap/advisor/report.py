"""The advice for one model as a YAML document: decision, candidates, memory, flags, and where the numbers come from."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import yaml

from memgap.advisor.bca import Decision, Profile, advise
from memgap.advisor.flags import advised_arguments, advised_flags
from memgap.advisor.memory import MemoryNeed, memory_need
from memgap.advisor.stability import stability
from memgap.engine.adapters import adapter_for
from memgap.engine.base import FlagNames
from memgap.engine.ranks import Sizes
from memgap.errors import UserError
from memgap.stats.averaging import STEADY, WINDOW, is_of_window
from memgap.stats.intervals import column_interval
from memgap.tables.fate import FAILED, GOOD, INVALID, PREEMPTED, UNNEEDED, fate, replicated

THROUGHPUT = "total_throughput_tok_s"
LATENCIES = ("itl_mean_ms", "tpot_mean_ms", "ttft_mean_ms", "e2e_mean_ms")
HEAD = "# Advice of the batching configuration advisor. How to read it: docs/advisor.md\n"


def model_rows(table: pd.DataFrame, model: str) -> pd.DataFrame:
    """Return the rows of one model; raises UserError naming the table's models where there is none."""
    rows = table[table["model"] == model]
    if rows.empty:
        known = ", ".join(sorted(table["model"].dropna().unique())) or "none"
        raise UserError(f"the table has no point of the model {model!r}; it has {known}.")
    return rows


def use_of(rows: pd.DataFrame, latency: str) -> "pd.Series[str]":
    """Return for each row its fate, where that is "good" but without a finite throughput and latency "no number"."""
    uses = fate(rows)
    numbers = rows[[THROUGHPUT, latency]].astype("float64")
    known = numbers.replace([np.inf, -np.inf], np.nan).notna().all(axis=1)
    return uses.mask((uses == GOOD) & ~known, "no number")


def profile_of(rows: pd.DataFrame, latency: str) -> list[Profile]:
    """Return one entry a cap: means over repeats and experiments of the points that are fit to be candidates."""
    profile = []
    for cap, group in rows.groupby("batch_cap"):
        good = group[use_of(group, latency) == GOOD]
        if good.empty:
            profile.append(Profile(int(str(cap)), None, None, _why_not(group, latency)))
        else:
            pairs = good[[THROUGHPUT, latency]].astype(float)
            profile.append(
                Profile(
                    int(str(cap)),
                    float(pairs[THROUGHPUT].mean()),
                    float(pairs[latency].mean()),
                    runs=tuple(pairs.itertuples(index=False, name=None)),
                    throughput_interval=column_interval(good, THROUGHPUT),
                    latency_interval=column_interval(good, latency),
                )
            )
    return profile


def _why_not(group: pd.DataFrame, latency: str) -> str:
    """Return what was seen of a cap's points that keeps the cap from being a candidate."""
    fates = list(fate(group))
    if INVALID in fates:
        return f"invalid: {group[fate(group) == INVALID]['verdict_reasons'].iloc[0]}"
    if set(fates) == {UNNEEDED}:
        return f"not needed: {group['error_message'].iloc[0]}"
    if FAILED in fates:
        return f"not measured: {group[fate(group) == FAILED]['status'].iloc[0]}"
    if PREEMPTED in fates:
        return "preempted: the cap does not fit into the KV cache"
    measured = group[fate(group) == GOOD]
    if measured.empty or measured[THROUGHPUT].isna().all():
        return "measured, but no throughput came of it"
    known = [name for name in LATENCIES if name != latency and name in measured and measured[name].notna().any()]
    single = ": replies of one token have no time between tokens" if latency.startswith(("itl", "tpot")) else ""
    other = f" (advisor.latency could be {', '.join(known)})" if known else ""
    return f"measured, but without {latency}{single if _single(measured) else ''}{other}"


def _single(measured: pd.DataFrame) -> bool:
    """Whether every reply of the points was one token long."""
    names = ("output_tokens", "requests_completed")
    return all(name in measured for name in names) and bool((measured[names[0]] <= measured[names[1]]).all())


def advice_for(table: pd.DataFrame, model: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the advice for a model from its sweep's table; `settings` is the configuration's `advisor` part."""
    rows = model_rows(table, model)
    rows = rows[~replicated(rows)]  # the advice is about one server
    profile = profile_of(rows, settings["latency"])
    decision = advise(profile, settings["slo"], settings["epsilon"])
    sure = stability(profile, settings["slo"], settings["epsilon"])
    advice: dict[str, Any] = {
        "model": model,
        "advice": decision.sentence,
        "b_opt": decision.b_opt,
        "rule": {
            "latency": settings["latency"],
            "slo_ms": _rounded(decision.slo_ms),
            "slo": decision.slo_source,
            "epsilon": decision.epsilon,
            "throughput": THROUGHPUT,
            "bound": dict(settings["slo"]),
        },
        "stability": {name: value for name, value in asdict(sure).items() if name != "notes"},
    }
    if decision.b_opt is not None:
        advice.update(_configuration(rows, decision, settings))
    advice["candidates"] = [
        {name: _rounded(value) for name, value in asdict(one).items()} for one in decision.candidates
    ]
    advice["notes"] = [
        *decision.notes,
        *_averaging_notes(rows, settings["latency"]),
        *sure.notes,
        *advice.pop("memory_notes", []),
    ]
    advice["measured"] = _provenance(rows)
    return advice


def write_advice(advice: Mapping[str, Any]) -> str:
    """Return the advice as YAML text with a heading."""
    return HEAD + yaml.safe_dump(dict(advice), sort_keys=False, allow_unicode=False, width=110)


def _configuration(rows: pd.DataFrame, decision: Decision, settings: Mapping[str, Any]) -> dict[str, Any]:
    assert decision.b_opt is not None
    chosen = rows[(rows["batch_cap"] == decision.b_opt) & (fate(rows) == GOOD)]
    names = flag_names(chosen, settings)
    need = memory_at(chosen, settings)
    measured = json.loads(str(chosen["server_args"].iloc[0]))
    flags = advised_flags(measured, decision.b_opt, need, names)
    left_out = {"notes", "device"} | (set() if names.fraction_is_of_free else {"kv_with_margin_tokens"})
    memory = {name: value for name, value in asdict(need).items() if name not in left_out}
    return {
        "expected": {
            name: _rounded(_mean(chosen, name))
            for name in (THROUGHPUT, settings["latency"], "kv_cache_usage_max_fraction")
        },
        "averaging": {name: _averaging(chosen, name) for name in (THROUGHPUT, settings["latency"])},
        "server_flags": flags,
        "server_args": advised_arguments(measured, decision.b_opt, need, names),
        "command": f"{names.command} {shlex.join(flags)}",
        "memory": {**memory, "margin": settings["memory_margin"], "limit_fraction": settings["memory_limit_fraction"]},
        "memory_notes": need.notes,
    }


def _averaging(rows: pd.DataFrame, name: str) -> str:
    """Return whether a column's values are of the steady part or, some of them or all, of the whole window."""
    pairs = zip(rows["averaging"].fillna(WINDOW), rows["of_window"], strict=True)
    steady = [averaging == STEADY and not is_of_window(listed, name) for averaging, listed in pairs]
    return STEADY if steady and all(steady) else WINDOW


def _averaging_notes(rows: pd.DataFrame, latency: str) -> list[str]:
    """Return what to say where some caps have averages over the steady part and others over the whole window."""
    good = rows[fate(rows) == GOOD]
    notes = []
    for name in (THROUGHPUT, latency):
        kinds = {int(str(cap)): _averaging(own, name) for cap, own in good.groupby("batch_cap")}
        caps = [str(cap) for cap, kind in kinds.items() if kind == WINDOW]
        if caps and STEADY in kinds.values():
            notes.append(f"{name} is of the whole window at cap {', '.join(caps)}, of the steady part at the others.")
    return notes


def flag_names(chosen: pd.DataFrame, settings: Mapping[str, Any]) -> FlagNames:
    """Return the names of flags of the engine that points are of; `settings["adapters"]` are adapters by engine."""
    return adapter_for(settings.get("adapters", {}).get(str(chosen["engine"].iloc[0]), "vllm")).flags


def memory_at(chosen: pd.DataFrame, settings: Mapping[str, Any]) -> MemoryNeed:
    """Return the memory that the good points of one cap need, with `memory_margin` and `memory_limit_fraction`.

    It is that of all GPUs of the server; each data-parallel engine has to hold one request, and is as full as the
    fullest one. What an engine takes whose share is of free memory is what was seen on the GPU.
    """
    names = flag_names(chosen, settings)
    utilization, memory = _median(chosen, "gpu_memory_utilization"), _median(chosen, "gpu_memory_bytes")
    if names.fraction_is_of_free:
        used = _median(chosen, "gpu_mem_used_max_bytes")
        utilization = used / memory if used and memory else None
    block_tokens, token_bytes = _median(chosen, "kv_block_tokens"), _median(chosen, "kv_bytes_per_token")
    longest = _median(chosen, "max_model_len")
    usage = chosen["kv_cache_usage_max_fraction"].dropna()
    engines = Sizes.of(names, json.loads(str(chosen["server_args"].iloc[0]))).engines
    return memory_need(
        device=str(chosen["device"].iloc[0]),
        usage_fraction=float(usage.max()) if len(usage) else None,
        kv_pool_bytes=_median(chosen, "kv_pool_bytes"),
        kv_block_bytes=block_tokens * token_bytes if block_tokens and token_bytes else None,
        kv_one_request_bytes=engines * longest * token_bytes if longest and token_bytes else None,
        weights_bytes=_median(chosen, "weights_bytes"),
        device_memory_bytes=memory,
        utilization=utilization,
        kv_token_bytes=token_bytes,
        margin=settings["memory_margin"],
        limit_fraction=settings["memory_limit_fraction"],
    )


def _median(rows: pd.DataFrame, column: str) -> float | None:
    values = rows[column].dropna()
    return float(values.median()) if len(values) else None


def _mean(rows: pd.DataFrame, column: str) -> float | None:
    values = rows[column].dropna()
    return float(values.mean()) if len(values) else None


def _provenance(rows: pd.DataFrame) -> dict[str, Any]:
    def found(column: str) -> list[str]:
        return sorted(map(str, rows[column].dropna().unique()))

    return {
        "sweep": found("sweep"),
        "points": len(rows),
        "engine": [f"{one} {version}" for one in found("engine") for version in found("engine_version")],
        "device": found("gpu_name") or found("device"),
        "dates_utc": [min(found("date_utc"), default=""), max(found("date_utc"), default="")],
    }


def _rounded(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value
