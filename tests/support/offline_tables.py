"""A made-up offline study for tests of its figures and tables: no number in it was measured."""

from typing import Any

import pandas as pd

from memgap.tables.offline_study import READ, OfflineTables

BATCHES = (1.0, 8.0, 64.0, 512.0)
LAYERS = 24
ATTENTION = "void cutlass::device_kernel<flash::FlashAttnFwdSm90<A, B>>(Params)"
GEMM = "nvjet_sm90_hsh_64x8_64x16_4x1_v_bz_TNT"
SETTING = {
    "prompt_tokens": 161,
    "output_tokens": 338,
    "mode": "graphs",
    "attention_backend": "FLASH_ATTN",
    "async_scheduling": "no",
    "detokenize": "no",
}
KEPT = {"source": "measured", "gpu_name": "TEST GPU"}


def times(model: str, batch: float) -> dict[str, float]:
    """Return made-up ms of a decode step by part; wall is their sum and 0.02 ms."""
    weights = {"opt-1.3b": 0.7, "llama-2-7b": 3.2}[model]
    parts = {
        "matmul": weights,
        "attention": weights * (0.1 + batch / 60),
        "kv_write": 0.02,
        "norm": 0.1,
        "sampling": 0.05 + batch / 5000,
        "unclassified": 0.01,
        "gaps": 0.15,
        "schedule": 0.1 + batch / 3000,
        "prepare": 0.2,
        "update": 0.05 + batch / 2000,
        "detokenize": 0.0,
        "output": 0.05,
    }
    return {**parts, "wall": sum(parts.values()) + 0.02}


def point(model: str, batch: float, **changes: Any) -> dict[str, Any]:
    """Return one row of the points' table; `detokenize="yes"` costs the host time in proportion to the batch."""
    ms = times(model, batch)
    busy = sum(ms[kind] for kind in ("matmul", "attention", "kv_write", "norm", "sampling", "unclassified"))
    text_ms = batch / 40 if changes.get("detokenize") == "yes" else 0.0
    wall = ms["wall"] + text_ms
    return {
        "sweep": "study",
        "experiment": "e",
        "key": f"{model}-{batch:g}-{'-'.join(map(str, changes.values()))}",
        "session": "s",
        "model": model,
        "engine": "vllm",
        "engine_version": "1",
        "batch": batch,
        **SETTING,
        "profiler": "none",
        "repeat": 0,
        "status": "ok",
        "error_message": "",
        "date_utc": "2026-01-02T03:04:05Z",
        **KEPT,
        "device": "cuda",
        "driver": "1.0",
        "verdict": "valid",
        "flags": "",
        "preemptions": 0,
        "prefill_s": 0.01 * (1 + batch / 32),
        "decode_s": 337 * wall / 1000,
        "total_s": 337 * wall / 1000 + 0.01 * (1 + batch / 32),
        "prefill_steps": 1,
        "decode_steps": 337,
        "decode_step_mean_ms": wall,
        "decode_throughput_tok_s": batch / wall * 1000,
        "context_mean_tokens": 330,
        "schedule_ms": ms["schedule"],
        "prepare_ms": ms["prepare"],
        "gpu_ms": busy + ms["gaps"],
        "fetch_ms": 0.0,
        "update_ms": ms["update"],
        "detokenize_ms": text_ms,
        "output_ms": ms["output"],
        "rest_ms": 0.02,
        "wall_ms": wall,
        "weights_bytes": 2.6e9,
        "kv_bytes_per_token": 196608,
        **changes,
    }


def class_rows(model: str, batch: float) -> list[dict[str, Any]]:
    """Return the class rows of one profiled point."""
    ms = times(model, batch)
    kinds = ("matmul", "attention", "kv_write", "norm", "sampling", "unclassified")
    shared = {
        "key": f"{model}-{batch:g}-torch",
        "model": model,
        "batch": batch,
        "prompt_tokens": 161,
        "mode": "graphs",
        "phase": "decode",
        "steps": 10,
        "kernels_per_step": 24,
        "busy_ms_per_step": sum(ms[kind] for kind in kinds),
        "span_ms_per_step": 9.0,
        "wall_ms_per_step": ms["wall"],
        "profiler": "torch",
        **KEPT,
    }
    return [{**shared, "kernel_class": kind, "gpu_ms_per_step": ms[kind]} for kind in kinds]


def counter_row(model: str, batch: float, kind: str, instance: int, **changes: Any) -> dict[str, Any]:
    """Return the counters of one kernel; attention is bound by memory, a matrix product at a large batch is not."""
    ms = times(model, batch)[kind]
    seconds = ms / LAYERS / 1000
    attention = kind == "attention"
    fraction = min(0.3 + 0.1 * batch**0.3, 0.92) if attention else 0.8
    read = fraction * 4.8e12 * seconds
    flop = read * (1.1 if attention else 1.0 * batch)
    scoreboard = 2.0 + (3.0 if batch > 8 else 0.0) if attention else 1.0
    return {
        "key": f"{model}-{batch:g}-ncu",
        "model": model,
        "batch": batch,
        **{name: SETTING[name] for name in ("prompt_tokens", "output_tokens", "attention_backend")},
        "mode": "eager",
        "phase": "decode",
        "step": 335,
        "context_tokens": 497,
        "kernel_class": kind,
        "name": ATTENTION if attention else GEMM,
        "instance": instance,
        **KEPT,
        "duration_s": seconds,
        "flop_fp32": 0.1 * flop,
        "flop_fp16": 0.0,
        "flop_fp64": 0.0,
        "flop_tensor": 0.9 * flop,
        "dram_read_bytes": read,
        "dram_write_bytes": 0.02 * read,
        "dram_read_fraction": fraction,
        "dram_fraction": 1.02 * fraction,
        "warps_in_flight_fraction": 0.15,
        "sm_active_fraction": 0.9,
        "tensor_pipe_fraction": 0.05,
        "l1_hit_fraction": 0.12,
        "l2_hit_fraction": 0.02,
        "warp_latency_cycles": 5.0 + scoreboard,
        "stall_long_scoreboard_cycles": scoreboard,
        "stall_wait_cycles": 2.0,
        "stall_barrier_cycles": 1.5,
        "stall_selected_cycles": 1.0,
        "stall_gmma_cycles": 0.5,
        "peak_flop_tensor_fp16_s": 9.89e14,
        "peak_flop_fp32_s": 6.69e13,
        "peak_dram_bytes_s": 4.8e12,
        **changes,
    }


def kernel_rows(model: str, batch: float) -> list[dict[str, Any]]:
    """Return the kernels of one decode step: a matrix product and an attention kernel a layer."""
    ms = times(model, batch)
    rows, clock = [], 0.05
    for layer in range(LAYERS):
        for kind, name in (("matmul", GEMM), ("attention", ATTENTION), ("norm", "triton_norm")):
            row = {
                "key": f"{model}-{batch:g}-torch",
                "model": model,
                "batch": batch,
                "phase": "decode",
                "step": 3,
                "start_ms": clock,
                "duration_ms": ms[kind] / LAYERS,
                "stream": "7",
                "kernel_class": kind,
                "name": name,
                "step_ms": ms["wall"],
                "profiler": "torch",
                "source": "measured",
            }
            rows.append(row)
            clock += row["duration_ms"] + ms["gaps"] / LAYERS / 3
        assert layer < LAYERS
    return rows


def offline_study(**without: bool) -> OfflineTables:
    """Return the tables of two models at four batches; `counters=False` and the like leave a table empty."""
    models = ("opt-1.3b", "llama-2-7b")
    points = [point(model, batch) for model in models for batch in BATCHES]
    points += [point("opt-1.3b", 512.0, detokenize="yes")]
    points += [point("llama-2-7b", 1024.0, status="oom", verdict=None)]
    classes = [row for model in models for batch in BATCHES for row in class_rows(model, batch)]
    kernels = [row for model in models for batch in (1.0, 512.0) for row in kernel_rows(model, batch)]
    counters = [
        counter_row(model, batch, kind, instance)
        for model in models
        for batch in (BATCHES if model == "opt-1.3b" else (1.0, 512.0))
        for kind in ("attention", "matmul")
        for instance in range(LAYERS)
    ]
    counters += [
        counter_row("opt-1.3b", 1.0, "attention", 0, key=f"ncu-{a}-{b}", prompt_tokens=a, output_tokens=b, step=step)
        for a, b in ((100, 100), (400, 100), (1600, 100), (100, 400), (100, 1600))
        for step in (0, b - 3)
    ]
    gpu = [
        {
            "key": f"opt-1.3b-{batch:g}",
            "model": "opt-1.3b",
            "batch": batch,
            "phase": phase,
            "time_ms": float(time),
            "metric": metric,
            "value_fraction": value * (0.5 + 0.5 * (time % 2)),
            "profiler": "nsys",
        }
        for batch in BATCHES
        for phase in ("prefill", "decode")
        for metric, value in (("dram_read", 0.8), ("warps", 0.2), ("sm_active", 0.9))
        for time in range(10)
    ]
    given = {"classes": classes, "kernels": kernels, "counters": counters, "gpu": gpu}
    tables = {
        kind: READ[kind].checked(pd.DataFrame(rows), kind) for kind, rows in given.items() if without.get(kind, True)
    }
    return OfflineTables(points=READ["offline"].checked(pd.DataFrame(points), "points"), **tables)
