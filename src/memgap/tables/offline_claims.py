"""What the paper says of kernels and phases, judged by an offline study; and the host's part, of which it says nothing.

Attention is that of the model's main backend in its decode steps; MAX is the largest batch that was counted or
measured.
"""

import pandas as pd

from memgap.figures.class_shares import shares
from memgap.figures.counters import ATTENTION, PAPERS_REASON, decode_counters, rooflines, stall_shares, weighted_mean
from memgap.figures.device_metrics import METRICS, phase_metrics
from memgap.figures.offline_points import SETTING, batch_label, ends, main_points, main_setting, unprofiled
from memgap.tables.claim import Claim, Found, single
from memgap.tables.offline_study import OfflineTables
from memgap.tables.tab01 import table as table_i

SATURATED, IDLE, FLAT, HOST = 0.7, 0.3, 0.25, 0.9


def _attention(tables: OfflineTables, model: str) -> pd.DataFrame:
    """Return the counted decode attention kernels of a model with its main backend."""
    kernels = decode_counters(tables.counters)
    kernels = kernels[(kernels["kernel_class"] == ATTENTION) & (kernels["model"] == model)]
    return main_setting(kernels, ("attention_backend",))


def _attention_at_max(tables: OfflineTables, model: str) -> tuple[pd.DataFrame, str]:
    kernels = _attention(tables, model)
    return kernels[kernels["batch"] == kernels["batch"].max()], f"at batch {kernels['batch'].max():g}"


def _dram_read(tables: OfflineTables, model: str) -> Found | None:
    kernels, place = _attention_at_max(tables, model)
    points = main_points(tables)
    own = points[points["model"] == model]
    own = own[own["batch"] == own["batch"].max()]
    metrics, source = phase_metrics(tables, own, "decode") if len(own) else ({}, "")
    whole = next((name for name in ("dram_read", "dram") if name in metrics), None)
    phase = f"; {METRICS[whole]} over the whole decode phase {metrics[whole][0]:.0%} ({source})" if whole else ""
    return single(weighted_mean(kernels, "dram_read_fraction"), f"attention kernels {place}{phase}")


def _tensor(tables: OfflineTables, model: str) -> Found | None:
    kernels, place = _attention_at_max(tables, model)
    warps = weighted_mean(kernels, "warps_in_flight_fraction")
    because = f"attention kernels {place}" + ("" if warps != warps else f", warps in flight {warps:.0%}")
    active = weighted_mean(kernels, "tensor_pipe_fraction")
    if active != active:
        # the pipe's own counter was not asked for: what it did, tile padding included, over what it could do
        done = kernels["flop_tensor"].sum() / kernels["duration_s"].sum() if len(kernels) else float("nan")
        active = done / weighted_mean(kernels, "peak_flop_tensor_fp16_s")
        because += "; counted tensor FLOP over the peak, tile padding included"
    return single(active, because)


def _share_growth(tables: OfflineTables, model: str) -> Found | None:
    found = shares(tables.classes)
    own = found[(found["model"] == model) & (found["part"] == "attention")].set_index("batch")["share_fraction"]
    batches = ends(own.reset_index())
    if len(batches) < 2:
        return None
    first, last = (float(own.loc[batch]) for batch in batches)
    labels = [batch_label(batch) for batch in batches]
    return single(last - first, f"{first:.0%} of a step at batch {labels[0]}, {last:.0%} at {labels[1]}")


def _flatness(tables: OfflineTables, model: str) -> Found | None:
    rows = rooflines(_attention(tables, model)).dropna(subset=["intensity_flop_byte"])
    batches = ends(rows)
    if len(batches) < 2:
        return None
    first, last = (float(rows[rows["batch"] == batch]["intensity_flop_byte"].iloc[0]) for batch in batches)
    shape = float(rows[rows["batch"] == batches[-1]]["analytic_intensity_flop_byte"].iloc[0])
    said = "" if shape != shape else f"; the model's shape says {shape:.2f}"
    return single(last / first, f"{first:.2f} FLOP/byte at batch {batches[0]:g}, {last:.2f} at {batches[1]:g}{said}")


def _stalls(tables: OfflineTables, model: str) -> Found | None:
    kernels, place = _attention_at_max(tables, model)
    found = stall_shares(kernels)
    if not found:
        return None
    largest = ", ".join(f"{reason.replace('_', ' ')} {share:.0%}" for reason, share in list(found.items())[:3])
    return single(found.get(PAPERS_REASON, 0.0), f"{place}; largest: {largest}")


def _prefill(tables: OfflineTables, model: str) -> Found | None:
    rows = table_i(tables)
    own = rows[(rows["model"] == model) & (rows["phase"] == "prefill")]
    if own.empty:
        return None
    return single(float(own["time_share_fraction"].iloc[0]), f"at batch {own['batch'].iloc[0]}")


def _host(tables: OfflineTables, model: str) -> Found | None:
    found = shares(tables.classes)
    own = found[(found["model"] == model) & (found["part"] == "cpu")].dropna(subset=["share_fraction"])
    if own.empty:
        return None
    last = own.iloc[-1]
    because = f"of {last['step_ms']:.1f} ms at batch {batch_label(last['batch'])}, with synchronous scheduling"
    return single(float(last["share_fraction"]), because + _overlapped(tables, model))


def _overlapped(tables: OfflineTables, model: str) -> str:
    """Return what asynchronous scheduling leaves of it, where that was measured."""
    points = unprofiled(tables).dropna(subset=["wall_ms", "gpu_ms"])
    own = points[(points["model"] == model) & (points["async_scheduling"] == "yes")].sort_values("batch")
    if own.empty:
        return ""
    last = own.iloc[-1]
    idle = max(1 - float(last["gpu_ms"]) / float(last["wall_ms"]), 0.0)
    return f"; asynchronous: {idle:.0%} of {last['wall_ms']:.1f} ms at batch {batch_label(last['batch'])}"


def _detokenizing(tables: OfflineTables, model: str) -> Found | None:
    points = unprofiled(tables)
    fixed = tuple(name for name in SETTING if name != "detokenize")
    own = main_setting(points[points["model"] == model], fixed)
    rates = own.pivot_table(index="batch", columns="detokenize", values="decode_throughput_tok_s")
    if not {"yes", "no"} <= set(rates.columns) or rates.dropna().empty:
        return None
    last = rates.dropna().iloc[-1]
    text, plain = float(last["yes"]), float(last["no"])
    batch = batch_label(float(str(rates.dropna().index[-1])))
    because = f"at batch {batch} {text:,.0f} tok/s with detokenising in the engine's process, {plain:,.0f} without"
    return single(text / plain, because)


OFFLINE_CLAIMS: tuple[Claim[OfflineTables], ...] = (
    Claim(
        "DRAM read saturates in attention at MAX",
        "fraction",
        {"opt-1.3b": 0.90},
        _dram_read,
        lambda value: value >= SATURATED,
        f"at least {SATURATED:.0%} of the peak bandwidth",
        always=True,
    ),
    Claim(
        "Compute idles meanwhile: tensor cores in attention at MAX",
        "fraction",
        {},
        _tensor,
        lambda value: value < IDLE,
        f"active for less than {IDLE:.0%} of the time",
        always=True,
    ),
    Claim(
        "Attention's share of a decode step grows from batch 1 to MAX",
        "fraction",
        {"opt-1.3b": 0.332, "opt-2.7b": 0.406, "llama-2-7b": 0.422, "llama-2-13b": 0.306},
        _share_growth,
        lambda value: value > 0.05,
        "by more than 5 points",
        always=True,
    ),
    Claim(
        "Attention's intensity stays flat from batch 1 to MAX",
        "ratio",
        {"opt-1.3b": 1.03},
        _flatness,
        lambda value: abs(value - 1) <= FLAT,
        f"within {FLAT:.0%}",
        always=True,
    ),
    Claim(
        "Over half of attention's warp latency waits for memory at MAX",
        "fraction",
        {"opt-1.3b": 0.539, "opt-2.7b": 0.834, "llama-2-7b": 0.570, "llama-2-13b": 0.558},
        _stalls,
        lambda value: value > 0.5,
        "long scoreboard above half of the warp latency",
        always=True,
    ),
    Claim(
        "Prefill takes a small share of the time at MAX",
        "fraction",
        {"opt-1.3b": 0.0315, "opt-2.7b": 0.0451, "llama-2-7b": 0.0525, "llama-2-13b": 0.0526},
        _prefill,
        lambda value: value < 0.1,
        "less than 10 %",
        always=True,
    ),
    Claim(
        "The host leaves the GPU idle in a decode step at MAX",
        "fraction",
        {"opt-1.3b": 0.366, "opt-2.7b": 0.257, "llama-2-7b": 0.152, "llama-2-13b": 0.085},
        _host,
        lambda value: value > 0.05,
        "more than 5% of the step",
        always=True,
    ),
    Claim(
        "Detokenising in the engine's process costs nothing: throughput with it over that without",
        "ratio",
        {},
        _detokenizing,
        lambda value: value >= HOST,
        f"at least {HOST:.0%} at the largest batch; the paper takes the GPU for the only limit",
        always=True,
    ),
)
