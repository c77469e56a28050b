"""The tables of an offline study: their columns, for who writes and who reads them, and all of them together."""

from dataclasses import dataclass, field

import pandas as pd

from memgap.profiling.metrics import COUNTERS as KERNEL_COUNTERS
from memgap.profiling.ncu import IDENTITY as KERNEL_IDENTITY
from memgap.tables.columns import Columns
from memgap.tables.inputs import Inputs
from memgap.tables.starts import START_COLUMNS

DEVICE_METRICS = ("sm_active", "warps", "tensor", "dram")
PHASES = ("prefill", "decode")
SEGMENTS_MS = ("schedule_ms", "prepare_ms", "gpu_ms", "fetch_ms", "update_ms", "detokenize_ms", "output_ms")
STALL = "stall_"
IDENTITY = ("model", "batch", "prompt_tokens", "output_tokens", "mode", "profiler")
_DEVICE = tuple(f"{p}_{m}_{s}_fraction" for p in PHASES for m in DEVICE_METRICS for s in ("mean", "max"))
SUMMARY = (
    *("prefill_s", "decode_s", "total_s", "prefill_steps", "decode_steps"),
    *("decode_step_mean_ms", "decode_step_p50_ms", "decode_step_p99_ms", "decode_throughput_tok_s"),
    *("kv_cache_usage_max_fraction", "context_mean_tokens", "sm_clock_mean_mhz", "decode_power_mean_w"),
    *_DEVICE,
    *(*SEGMENTS_MS, "rest_ms", "wall_ms", "unclassified_fraction"),
)

ENGINE = (*("weights_bytes", "kv_pool_tokens", "kv_block_tokens", "num_gpu_blocks", "graph_memory_bytes", "start_s"),)
"""Columns of what a point's engine says of itself."""


class _Points(Columns):
    """The points' table also has the batch as `batch_cap`, as tables of servers call it."""

    def typed(self, table: pd.DataFrame) -> pd.DataFrame:
        typed = super().typed(table)
        return typed.assign(batch_cap=typed["batch"].astype("Int64"), flags=typed["flags"].fillna(""))


READ = {
    "offline": _Points(
        "the offline table of an offline study",
        (
            *("sweep", "experiment", "key", "session", "model", "engine", "engine_version", "batch", "prompt_tokens"),
            *("output_tokens", "mode", "attention_backend", "profiler", "async_scheduling", "detokenize", "repeat"),
            *("server_args", "status", "flags", "verdict", "error_kind", "error_message", "date_utc", "device"),
            *("gpu_name", "driver", "source", "preemptions", *SUMMARY, "slowdown_from_profiler"),
            *("dataset", "output_throughput_tok_s", "kv_bytes_per_token", *ENGINE, *START_COLUMNS, "weight_read_ms"),
        ),
        text=(
            *("sweep", "experiment", "key", "session", "model", "engine", "engine_version", "mode"),
            *("attention_backend", "profiler", "async_scheduling", "detokenize", "server_args", "status", "flags"),
            *("verdict", "error_kind", "error_message", "date_utc", "device", "gpu_name", "driver", "source"),
            "dataset",
        ),
        numbers=True,
        needed=(
            *("sweep", "key", "model", "engine", "engine_version", "mode", "attention_backend", "profiler", "status"),
            *("async_scheduling", "detokenize", "source", "batch", "prompt_tokens", "output_tokens", "repeat"),
            *("preemptions", "prefill_s", "decode_s", "total_s", "prefill_steps", "decode_steps"),
            *("decode_step_mean_ms", "decode_throughput_tok_s", "context_mean_tokens", *SEGMENTS_MS, "rest_ms"),
            *("wall_ms", "weights_bytes", "kv_bytes_per_token"),
        ),
    ),
    "steps": Columns(
        "the steps table of an offline study",
        (
            *("key", "model", "batch", "profiler", "phase", "step", "wall_ms", "tokens", "running", "waiting"),
            *("kv_cache_usage_fraction", *SEGMENTS_MS, "rest_ms"),
        ),
    ),
    "classes": Columns(
        "the classes table of an offline study",
        (
            *("key", "model", "batch", "prompt_tokens", "output_tokens", "mode", "phase", "steps", "kernel_class"),
            *("kernels_per_step", "gpu_ms_per_step", "busy_ms_per_step", "span_ms_per_step", "wall_ms_per_step"),
            *("profiler", "source", "gpu_name"),
        ),
        text=("key", "model", "mode", "phase", "kernel_class", "profiler", "source", "gpu_name"),
        numbers=True,
        needed=(
            *("key", "model", "mode", "phase", "kernel_class", "profiler", "source", "batch", "prompt_tokens"),
            *("steps", "kernels_per_step", "gpu_ms_per_step", "busy_ms_per_step", "span_ms_per_step"),
            "wall_ms_per_step",
        ),
    ),
    "kernels": Columns(
        "the kernels table of an offline study",
        (
            *("key", "model", "batch", "prompt_tokens", "phase", "step", "start_ms", "duration_ms", "stream"),
            *("kernel_class", "name", "step_ms", "profiler", "source"),
        ),
        text=("key", "model", "phase", "stream", "kernel_class", "name", "profiler", "source"),
        numbers=True,
        needed=(
            *("key", "model", "phase", "stream", "kernel_class", "name", "profiler", "source", "batch", "step"),
            *("start_ms", "duration_ms", "step_ms"),
        ),
    ),
    "counters": Columns(
        "the counters table of an offline study",
        (
            *("key", *IDENTITY, "attention_backend", "gpu_name", "source"),
            *(name for name in KERNEL_IDENTITY if name != "ranges"),
            *(*KERNEL_COUNTERS, "context_tokens"),
        ),
        text=(
            *("key", "model", "mode", "profiler", "attention_backend", "phase", "kernel_class", "name", "source"),
            *("gpu_name", "grid", "block"),
        ),
        numbers=True,
        needed=(
            *("key", "model", "mode", "attention_backend", "phase", "kernel_class", "name", "source", "batch"),
            *("prompt_tokens", "output_tokens", "step", "context_tokens", "instance", "duration_s", "flop_fp32"),
            *("flop_fp16", "flop_fp64", "flop_tensor", "dram_read_bytes", "dram_write_bytes", "dram_read_fraction"),
            *("dram_fraction", "warps_in_flight_fraction", "sm_active_fraction", "tensor_pipe_fraction"),
            *("l1_hit_fraction", "l2_hit_fraction", "warp_latency_cycles", "peak_flop_tensor_fp16_s"),
            *("peak_flop_fp32_s", "peak_dram_bytes_s"),
        ),
        more=STALL,
    ),
    "gpu": Columns(
        "the gpu table of an offline study",
        ("key", "model", "batch", "phase", "time_ms", "metric", "value_fraction", "profiler"),
        text=("key", "model", "phase", "metric", "profiler"),
        numbers=True,
    ),
}
"""How each is read; a table of counters may have further stall reasons."""
KINDS = tuple(READ)


@dataclass(frozen=True)
class OfflineTables:
    """The tables of one offline study that figures draw; one that was not given has its columns and no rows."""

    points: pd.DataFrame = field(default_factory=READ["offline"].empty)
    classes: pd.DataFrame = field(default_factory=READ["classes"].empty)
    kernels: pd.DataFrame = field(default_factory=READ["kernels"].empty)
    counters: pd.DataFrame = field(default_factory=READ["counters"].empty)
    gpu: pd.DataFrame = field(default_factory=READ["gpu"].empty)

    @property
    def models(self) -> list[str]:
        """The models in the order of the points, each once."""
        return list(dict.fromkeys(self.points["model"].dropna()))


def offline_of(inputs: Inputs) -> OfflineTables:
    """Return the tables of the study that `reads` name; raises UserError where a file is none of them."""
    kinds = ("offline", "classes", "kernels", "counters", "gpu")
    return OfflineTables(*(inputs[f"study.{kind}"] for kind in kinds))
