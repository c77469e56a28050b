"""The tables of an offline study: points, steps, kernel classes, timelines, counters, device counters over time."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from memgap.canonical import canonical_json
from memgap.engine.given import GivenFlags
from memgap.errors import DAMAGE, UserError
from memgap.kinds.offline.point import mode_of
from memgap.kinds.offline.steps import SEGMENTS
from memgap.models.architecture import ModelArchitecture
from memgap.profiling.metrics import COUNTERS as KERNEL_COUNTERS
from memgap.profiling.ncu import IDENTITY as KERNEL_IDENTITY
from memgap.store.points import PointStore

KINDS = ("offline", "steps", "classes", "kernels", "counters", "gpu")
COUNTERS = ("sm_active", "warps", "tensor", "dram")
SUMMARY = (
    *("prefill_s", "decode_s", "total_s", "prefill_steps", "decode_steps"),
    *("decode_step_mean_ms", "decode_step_p50_ms", "decode_step_p99_ms", "decode_throughput_tok_s"),
    *("kv_cache_usage_max_fraction", "context_mean_tokens", "sm_clock_mean_mhz", "decode_power_mean_w"),
    *(
        f"{phase}_{name}_{kind}_fraction"
        for phase in ("prefill", "decode")
        for name in COUNTERS
        for kind in ("mean", "max")
    ),
    *(f"{name.removesuffix('_s')}_ms" for name in SEGMENTS),
    *("rest_ms", "wall_ms", "unclassified_fraction"),
)
BEFORE_WINDOW_STEPS = 5
IDENTITY = ("model", "batch", "prompt_tokens", "output_tokens", "mode", "profiler")
OFFLINE_COLUMNS = (
    *("sweep", "experiment", "key", "session", "model", "engine", "engine_version", "batch", "prompt_tokens"),
    *(
        "output_tokens",
        "mode",
        "attention_backend",
        "profiler",
        "async_scheduling",
        "detokenize",
        "repeat",
        "server_args",
    ),
    *(
        "status",
        "flags",
        "verdict",
        "error_kind",
        "error_message",
        "date_utc",
        "device",
        "gpu_name",
        "driver",
        "source",
    ),
    *("preemptions", *SUMMARY, "slowdown_from_profiler"),
    *("weights_bytes", "kv_bytes_per_token", "kv_pool_tokens", "start_s"),
)
STEP_COLUMNS = (
    *("key", "model", "batch", "profiler", "phase", "step", "wall_ms", "tokens", "running", "waiting"),
    *("kv_cache_usage_fraction", *(f"{name.removesuffix('_s')}_ms" for name in SEGMENTS), "rest_ms"),
)
CLASS_COLUMNS = (
    *("key", "model", "batch", "prompt_tokens", "output_tokens", "mode", "phase", "steps", "kernel_class"),
    *("kernels_per_step", "gpu_ms_per_step", "busy_ms_per_step", "span_ms_per_step", "wall_ms_per_step"),
    *("profiler", "source", "gpu_name"),
)
KERNEL_COLUMNS = (
    *("key", "model", "batch", "prompt_tokens", "phase", "step", "start_ms", "duration_ms", "stream", "kernel_class"),
    *("name", "step_ms", "profiler", "source"),
)
COUNTER_COLUMNS = (
    *("key", *IDENTITY, "attention_backend", "gpu_name", "source"),
    *(name for name in KERNEL_IDENTITY if name != "ranges"),
    *(*KERNEL_COUNTERS, "context_tokens"),
)
"""Columns of an empty table of counters; further stall reasons may follow where there are kernels."""
GPU_COLUMNS = ("key", "model", "batch", "phase", "time_ms", "metric", "value_fraction", "profiler")


def offline_tables(plan: Mapping[str, Any], points: Path) -> dict[str, pd.DataFrame]:
    """Return the tables of an offline study's plan by kind (`KINDS`); points without a kind's file are absent there."""
    study = _Study(plan, points)
    return {
        "offline": study.points_table(),
        "steps": study.steps_table(),
        "classes": study.classes_table(),
        "kernels": study.series("timeline", KERNEL_COLUMNS),
        "counters": study.counters_table(),
        "gpu": study.series("gpu", GPU_COLUMNS),
    }


class _Study:
    def __init__(self, plan: Mapping[str, Any], points: Path) -> None:
        self._plan = plan
        self._folder = points
        store = PointStore(points)
        self._entries: list[tuple[Mapping[str, Any], dict[str, Any] | None, str]] = []
        for entry in plan["points"]:
            try:
                point = store.read(entry["key"])
                self._entries.append((entry, point, point["status"] if point else "missing"))
            except UserError:
                self._entries.append((entry, None, "garbled"))

    def points_table(self) -> pd.DataFrame:
        rows = [self._row(*one) for one in self._entries]
        return pd.DataFrame(rows, columns=list(OFFLINE_COLUMNS))

    def steps_table(self) -> pd.DataFrame:
        table = self.series("steps", None)
        if table.empty:
            return pd.DataFrame(columns=list(STEP_COLUMNS))
        for name in ("wall_s", *SEGMENTS, "rest_s"):
            table[f"{name.removesuffix('_s')}_ms"] = table[name] * 1e3
        return table.reindex(columns=list(STEP_COLUMNS))

    def classes_table(self) -> pd.DataFrame:
        table = self.series("classes", None)
        if table.empty:
            return pd.DataFrame(columns=list(CLASS_COLUMNS))
        table["kernels_per_step"] = table["kernels"] / table["steps"]
        for name, source in (("gpu", "gpu_s"), ("busy", "busy_s"), ("span", "span_s")):
            table[f"{name}_ms_per_step"] = table[source] / table["steps"] * 1e3
        walls = {
            (entry["key"], phase): self._twin_wall_ms(entry["record"], phase)
            for entry, point, _ in self._entries
            if point and "window" in entry["record"]
            for phase in ("prefill", "decode")
        }
        pairs = zip(table["key"], table["phase"], strict=True)
        table["wall_ms_per_step"] = [walls.get(pair) for pair in pairs]
        return table.reindex(columns=list(CLASS_COLUMNS))

    def counters_table(self) -> pd.DataFrame:
        table = self.series("counters", None)
        if table.empty:
            return pd.DataFrame(columns=list(COUNTER_COLUMNS))
        decode = table["phase"] == "decode"
        table["context_tokens"] = table["prompt_tokens"] + table["step"].where(decode, -1) + 1
        first = [name for name in (*IDENTITY, "attention_backend", "gpu_name", "source") if name in table]
        return table[["key", *first, *(name for name in table if name not in ("key", *first))]]

    def series(self, kind: str, columns: tuple[str, ...] | None) -> pd.DataFrame:
        """Return a series of all points that have it, with what identifies each point."""
        tables = []
        for entry, point, _ in self._entries:
            path = self._folder / entry["key"] / f"{kind}.csv.gz"
            if point is None or not path.exists():
                continue
            try:
                table = pd.read_csv(path)
            except DAMAGE as error:
                raise UserError(f"{path} is damaged ({error}); measure the point again.") from error
            named = self._identity(entry, point)
            if "profiler" in table:
                named.pop("profiler")
            tables.append(table.assign(**named))
        if not tables:
            return pd.DataFrame(columns=list(columns or ()))
        joined = pd.concat(tables, ignore_index=True)
        return joined.reindex(columns=list(columns)) if columns else joined

    def _identity(self, entry: Mapping[str, Any], point: Mapping[str, Any]) -> dict[str, Any]:
        record = entry["record"]
        profiler = record["server"]["profiler"]
        return {
            "key": entry["key"],
            "model": record["model"]["name"],
            **{name: record[name] for name in ("batch", "prompt_tokens", "output_tokens")},
            "mode": mode_of(record),
            "attention_backend": point["engine"].get("attention_backend"),
            "profiler": profiler["source"] if profiler else "none",
            "gpu_name": point["hardware"]["gpu_name"],
            "source": "recorded" if "recorded" in point else "measured",
        }

    def _row(self, entry: Mapping[str, Any], point: Mapping[str, Any] | None, status: str) -> dict[str, Any]:
        record = entry["record"]
        profiler = record["server"]["profiler"]
        dtype = record["model"]["dtype"]
        row = {
            "sweep": self._plan["sweep"],
            **{name: entry[name] for name in ("experiment", "key", "session")},
            "model": record["model"]["name"],
            "engine": record["engine"]["package"],
            "engine_version": record["engine"]["version"],
            **{name: record[name] for name in ("batch", "prompt_tokens", "output_tokens", "repeat")},
            "mode": mode_of(record),
            "profiler": profiler["source"] if profiler else "none",
            "async_scheduling": "yes" if GivenFlags.of(record).get("async_scheduling", True) else "no",
            "detokenize": "yes" if record["detokenize"] else "no",
            "server_args": canonical_json(record["server"]["args"]),
            "kv_bytes_per_token": ModelArchitecture.from_dict(record["model"]["architecture"]).kv_bytes_per_token(
                dtype
            ),
            "status": status,
        }
        if point is None:
            return row
        summary, engine, error = point["summary"], point["engine"], point["error"] or {}
        if "async_scheduling" in engine:
            row["async_scheduling"] = "yes" if engine["async_scheduling"] else "no"
        twin_ms = self._twin_wall_ms(record, "decode") if profiler else None
        return {
            **row,
            "attention_backend": engine.get("attention_backend"),
            "flags": ";".join(point["flags"]),
            "verdict": point["verdict"]["verdict"],
            "error_kind": error.get("kind"),
            "error_message": error.get("message"),
            "date_utc": point["provenance"]["date_utc"],
            **{name: point["hardware"][name] for name in ("device", "gpu_name", "driver")},
            "source": "recorded" if "recorded" in point else "measured",
            "preemptions": 0 if status == "ok" else None,
            **{name: summary.get(name) for name in SUMMARY},
            **{name: engine.get(name) for name in ("weights_bytes", "kv_pool_tokens", "start_s")},
            "slowdown_from_profiler": self._profiled_ms(entry) / twin_ms if twin_ms else None,
        }

    def _twin_wall_ms(self, record: Mapping[str, Any], phase: str) -> float | None:
        """Return the mean wall time of a phase's steps of the same point without a profiler: for decode those of the
        window where they are kept, for prefill all. Without such a point see `_before_window_ms`.
        """
        for entry, point, status in self._entries:
            if point is None or status != "ok" or not _twins(entry["record"], record):
                continue
            steps = self._steps_of(entry["key"], phase)
            if phase == "decode":
                inside, first = _in_window(steps, record), record["window"]["decode_from"]
                steps = inside if len(inside) else steps.iloc[(steps["step"] - first).abs().argsort()[:2]]
            return float(steps["wall_s"].mean() * 1e3) if len(steps) else None
        return self._before_window_ms(record) if phase == "decode" else None

    def _before_window_ms(self, record: Mapping[str, Any]) -> float | None:
        """Return the mean wall time of the steps just before the window of the profiled point itself: torch.profiler
        starts with its window, so they ran without it. None for the other profilers, which watch all steps.
        """
        if record["server"]["profiler"]["source"] != "torch":
            return None
        key = next((entry["key"] for entry, _, _ in self._entries if entry["record"] == record), "")
        steps = self._steps_of(key, "decode")
        before = steps[steps["step"] < record["window"]["decode_from"]].tail(BEFORE_WINDOW_STEPS)
        return float(before["wall_s"].mean() * 1e3) if len(before) else None

    def _profiled_ms(self, entry: Mapping[str, Any]) -> float:
        steps = _in_window(self._steps_of(entry["key"], "decode"), entry["record"])
        return float(steps["wall_s"].mean() * 1e3)

    def _steps_of(self, key: str, phase: str) -> pd.DataFrame:
        path = self._folder / key / "steps.csv.gz"
        if not path.exists():
            return pd.DataFrame({"step": [], "wall_s": []})
        steps = pd.read_csv(path)
        return steps[steps["phase"] == phase]


def _in_window(steps: pd.DataFrame, record: Mapping[str, Any]) -> pd.DataFrame:
    """Return those decode steps that a profiled point's profiler watched."""
    window = record["window"]
    return steps[steps["step"].between(window["decode_from"], window["decode_from"] + window["decode_steps"] - 1)]


def _twins(one: Mapping[str, Any], profiled: Mapping[str, Any]) -> bool:
    """Whether the first record is the second without its profiler."""
    same = (
        "harness",
        "engine",
        "model",
        "batch",
        "prompt_tokens",
        "output_tokens",
        "detokenize",
        "temperature",
        "seed",
    )
    return (
        one["server"]["profiler"] is None
        and all(one[name] == profiled[name] for name in same)
        and all(one["server"][part] == profiled["server"][part] for part in ("args", "env"))
    )
