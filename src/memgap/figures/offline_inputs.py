"""The tables of an offline study, read and checked: points, kernel classes, kernel timelines, counters, GPU metrics."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from memgap.errors import DAMAGE, UserError

DEVICE_METRICS = ("sm_active", "warps", "tensor", "dram")
PHASES = ("prefill", "decode")
SEGMENTS_MS = (
    "schedule_ms",
    "prepare_ms",
    "gpu_ms",
    "fetch_ms",
    "update_ms",
    "detokenize_ms",
    "output_ms",
    "rest_ms",
    "wall_ms",
)
STALL = "stall_"

_TEXT = {
    "offline": (
        *("sweep", "experiment", "key", "session", "model", "engine", "engine_version", "mode", "attention_backend"),
        *("profiler", "async_scheduling", "detokenize", "status", "error_message", "date_utc", "gpu_name", "device"),
        *("driver", "source", "verdict", "flags"),
    ),
    "classes": ("key", "model", "mode", "phase", "kernel_class", "profiler", "source", "gpu_name"),
    "kernels": ("key", "model", "phase", "stream", "kernel_class", "name", "profiler", "source"),
    "counters": ("key", "model", "mode", "attention_backend", "phase", "kernel_class", "name", "source", "gpu_name"),
    "gpu": ("key", "model", "phase", "metric", "profiler"),
}
_NUMBERS = {
    "offline": (
        *("batch", "prompt_tokens", "output_tokens", "repeat", "preemptions", "prefill_s", "decode_s", "total_s"),
        *("prefill_steps", "decode_steps", "decode_step_mean_ms", "decode_throughput_tok_s", "context_mean_tokens"),
        *SEGMENTS_MS,
        *(f"{p}_{m}_{s}_fraction" for p in PHASES for m in DEVICE_METRICS for s in ("mean", "max")),
        *("weights_bytes", "kv_bytes_per_token"),
    ),
    "classes": (
        *("batch", "prompt_tokens", "steps", "kernels_per_step", "gpu_ms_per_step", "busy_ms_per_step"),
        *("span_ms_per_step", "wall_ms_per_step"),
    ),
    "kernels": ("batch", "step", "start_ms", "duration_ms", "step_ms"),
    "counters": (
        *("batch", "prompt_tokens", "output_tokens", "step", "context_tokens", "instance", "duration_s"),
        *("flop_fp32", "flop_fp16", "flop_fp64", "flop_tensor", "dram_read_bytes", "dram_write_bytes"),
        *("dram_read_fraction", "dram_fraction", "warps_in_flight_fraction", "sm_active_fraction"),
        *("tensor_pipe_fraction", "l1_hit_fraction", "l2_hit_fraction", "warp_latency_cycles"),
        *("peak_flop_tensor_fp16_s", "peak_flop_fp32_s", "peak_dram_bytes_s"),
    ),
    "gpu": ("batch", "time_ms", "value_fraction"),
}
_OPTIONAL = {
    *("experiment", "session", "flags", "error_message", "driver", "gpu_name", "date_utc", "device", "verdict"),
    *(f"{p}_{m}_{s}_fraction" for p in PHASES for m in DEVICE_METRICS for s in ("mean", "max")),
}
"""Columns that a table may lack: they are empty then."""
KINDS = tuple(_TEXT)


def _no_rows(kind: str) -> pd.DataFrame:
    return _typed(pd.DataFrame(columns=[*_TEXT[kind], *_NUMBERS[kind]]), kind)


@dataclass(frozen=True)
class OfflineTables:
    """The tables of one offline study; a table that was not given has its columns and no rows."""

    points: pd.DataFrame = field(default_factory=lambda: _no_rows("offline"))
    classes: pd.DataFrame = field(default_factory=lambda: _no_rows("classes"))
    kernels: pd.DataFrame = field(default_factory=lambda: _no_rows("kernels"))
    counters: pd.DataFrame = field(default_factory=lambda: _no_rows("counters"))
    gpu: pd.DataFrame = field(default_factory=lambda: _no_rows("gpu"))

    @property
    def models(self) -> list[str]:
        """The models in the order of the points, each once."""
        return list(dict.fromkeys(self.points["model"].dropna()))


def read_offline(paths: Mapping[str, Path | None]) -> OfflineTables:
    """Return the tables by kind (offline, classes, kernels, counters, gpu); a kind without a path is empty.

    Raises UserError where a file cannot be read, lacks a column or has text for a number.
    """
    tables = {kind: _read(kind, path) for kind, path in paths.items() if path is not None}
    return OfflineTables(points=tables.pop("offline", _no_rows("offline")), **tables)


def checked(table: pd.DataFrame, kind: str, where: str) -> pd.DataFrame:
    """Return a table of a kind with all columns and their types; raises UserError, naming `where`, where it is none."""
    needed = [column for column in (*_TEXT[kind], *_NUMBERS[kind]) if column not in _OPTIONAL]
    missing = [column for column in needed if column not in table.columns]
    if missing:
        raise UserError(
            f"{where}: not the {kind} table of an offline study, the column {missing[0]} is missing; "
            "let Snakemake make it again."
        )
    absent = [column for column in (*_TEXT[kind], *_NUMBERS[kind]) if column not in table.columns]
    try:
        return _typed(table.assign(**dict.fromkeys(absent)), kind)
    except DAMAGE as error:
        raise UserError(
            f"{where}: a number in the {kind} table is none ({error}); let Snakemake make it again."
        ) from error


def _read(kind: str, path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype=dict.fromkeys(_TEXT[kind], "object"), low_memory=False)
    except DAMAGE as error:
        raise UserError(
            f"{path}: not the {kind} table of an offline study ({error}); let Snakemake make it again."
        ) from error
    return checked(table, kind, str(path))


def _typed(table: pd.DataFrame, kind: str) -> pd.DataFrame:
    stalls = [column for column in table.columns if column.startswith(STALL)]
    numbers = {column: pd.to_numeric(table[column]).astype(float) for column in [*_NUMBERS[kind], *stalls]}
    texts = {column: table[column].astype("string").astype(object) for column in _TEXT[kind]}
    typed = table.assign(**numbers, **texts)
    for column in texts:
        typed[column] = typed[column].where(typed[column].notna(), None)
    if kind == "offline":
        typed["batch_cap"] = typed["batch"].astype("Int64")
        typed["flags"] = typed["flags"].fillna("")
    return typed
