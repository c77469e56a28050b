"""The tables of an offline study: points, steps, kernel classes, timelines, counters, device counters over time."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from memgap.canonical import canonical_json
from memgap.declared.tables import TableSpec
from memgap.engine.given import GivenFlags
from memgap.engine.held import held_of
from memgap.errors import DAMAGE
from memgap.kinds.offline.point import mode_of
from memgap.kinds.offline.steps import SEGMENTS
from memgap.roofline.limits import weight_read_ms
from memgap.tables.entries import Entry, entries, series_of, source_of
from memgap.tables.inputs import Inputs
from memgap.tables.offline_study import ENGINE, IDENTITY, READ, SUMMARY
from memgap.tables.starts import start_columns

BEFORE_WINDOW_STEPS = 5
TABLE = TableSpec(
    name="offline",
    title="Tables of an offline study",
    of="study",
    plan="group",
    writes={
        "offline": "results/tables/{group}.offline.csv",
        "steps": "results/tables/{group}.steps.csv",
        "classes": "results/tables/{group}.classes.csv",
        "kernels": "results/tables/{group}.kernels.csv",
        "counters": "results/tables/{group}.counters.csv",
        "gpu": "results/tables/{group}.gpu.csv",
    },
    wanted=("offline",),
    digits=0,
)


def make(inputs: Inputs) -> dict[str, pd.DataFrame]:
    """Return the tables of the study of the inputs' plan."""
    return offline_tables(inputs.plan, inputs.points)


def offline_tables(plan: Mapping[str, Any], points: Path) -> dict[str, pd.DataFrame]:
    """Return the tables of an offline study's plan by kind (`READ`); points without a kind's file are absent there."""
    study = _Study(plan, points)
    return {
        "offline": study.points_table(),
        "steps": study.steps_table(),
        "classes": study.classes_table(),
        "kernels": study.series("timeline", READ["kernels"].names),
        "counters": study.counters_table(),
        "gpu": study.series("gpu", READ["gpu"].names),
    }


class _Study:
    def __init__(self, plan: Mapping[str, Any], points: Path) -> None:
        self._name = plan["sweep"]
        self._entries = entries(plan, points)

    def points_table(self) -> pd.DataFrame:
        rows = []
        for entry in self._entries:
            try:
                rows.append(self._row(entry))
            except DAMAGE as error:
                rows.append(self._row(entry.garbled(error)))
        return pd.DataFrame(rows, columns=list(READ["offline"].names))

    def steps_table(self) -> pd.DataFrame:
        table = self.series("steps", None)
        if table.empty:
            return pd.DataFrame(columns=list(READ["steps"].names))
        for name in ("wall_s", *SEGMENTS, "rest_s"):
            table[f"{name.removesuffix('_s')}_ms"] = table[name] * 1e3
        return table.reindex(columns=list(READ["steps"].names))

    def classes_table(self) -> pd.DataFrame:
        table = self.series("classes", None)
        if table.empty:
            return pd.DataFrame(columns=list(READ["classes"].names))
        table["kernels_per_step"] = table["kernels"] / table["steps"]
        for name, source in (("gpu", "gpu_s"), ("busy", "busy_s"), ("span", "span_s")):
            table[f"{name}_ms_per_step"] = table[source] / table["steps"] * 1e3
        walls = {
            (entry.key, phase): self._twin_wall_ms(entry.record, phase)
            for entry in self._entries
            if entry.point and "window" in entry.record
            for phase in ("prefill", "decode")
        }
        pairs = zip(table["key"], table["phase"], strict=True)
        table["wall_ms_per_step"] = [walls.get(pair) for pair in pairs]
        return table.reindex(columns=list(READ["classes"].names))

    def counters_table(self) -> pd.DataFrame:
        table = self.series("counters", None)
        if table.empty:
            return pd.DataFrame(columns=list(READ["counters"].names))
        decode = table["phase"] == "decode"
        table["context_tokens"] = table["prompt_tokens"] + table["step"].where(decode, -1) + 1
        first = [name for name in (*IDENTITY, "attention_backend", "gpu_name", "source") if name in table]
        return table[["key", *first, *(name for name in table if name not in ("key", *first))]]

    def series(self, kind: str, columns: tuple[str, ...] | None) -> pd.DataFrame:
        """Return a series of all points that have it, with what identifies each point."""
        tables = []
        for entry in self._entries:
            if entry.point is None or not (entry.folder / f"{kind}.csv.gz").exists():
                continue
            table, named = entry.series(kind), self._identity(entry, entry.point)
            if "profiler" in table:
                named.pop("profiler")
            tables.append(table.assign(**named))
        if not tables:
            return pd.DataFrame(columns=list(columns or ()))
        joined = pd.concat(tables, ignore_index=True)
        return joined.reindex(columns=list(columns)) if columns else joined

    def _identity(self, entry: Entry, point: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "key": entry.key,
            **_setting(entry.record),
            "attention_backend": point["engine"].get("attention_backend"),
            "gpu_name": point["hardware"]["gpu_name"],
            "source": source_of(point),
        }

    def _row(self, entry: Entry) -> dict[str, Any]:
        record, point = entry.record, entry.point
        row = {
            "sweep": self._name,
            **entry.declared,
            **_setting(record),
            "dataset": record["dataset"]["name"] if "dataset" in record else None,
            "async_scheduling": "yes" if GivenFlags.of(record).get("async_scheduling", True) else "no",
            "detokenize": "yes" if record["detokenize"] else "no",
            "server_args": canonical_json(record["server"]["args"]),
            "kv_bytes_per_token": held_of(record).kv_bytes_per_token,
            **entry.outcome,
        }
        if point is None:
            return row
        summary, engine = point["summary"], point["engine"]
        if "async_scheduling" in engine:
            row["async_scheduling"] = "yes" if engine["async_scheduling"] else "no"
        twin_ms = self._twin_wall_ms(record, "decode") if record["server"]["profiler"] else None
        return {
            **row,
            "attention_backend": engine.get("attention_backend"),
            "preemptions": 0 if entry.status == "ok" else None,
            **{name: summary.get(name) for name in (*SUMMARY, "output_throughput_tok_s")},
            **{name: engine.get(name) for name in ENGINE},
            **start_columns(engine),
            "weight_read_ms": weight_read_ms(record, point["hardware"]["gpu_name"]),
            "slowdown_from_profiler": self._profiled_ms(entry) / twin_ms if twin_ms else None,
        }

    def _twin_wall_ms(self, record: Mapping[str, Any], phase: str) -> float | None:
        """Return the mean wall time of a phase's steps of the same point without a profiler: for decode those of the
        window where they are kept, for prefill all. Without such a point see `_before_window_ms`.
        """
        for entry in self._entries:
            if entry.status != "ok" or not _twins(entry.record, record):
                continue
            steps = _steps_of(entry, phase)
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
        own = next((entry for entry in self._entries if entry.record == record), None)
        if own is None:
            return None
        steps = _steps_of(own, "decode")
        before = steps[steps["step"] < record["window"]["decode_from"]].tail(BEFORE_WINDOW_STEPS)
        return float(before["wall_s"].mean() * 1e3) if len(before) else None

    def _profiled_ms(self, entry: Entry) -> float:
        steps = _in_window(_steps_of(entry, "decode"), entry.record)
        return float(steps["wall_s"].mean() * 1e3)


def _setting(record: Mapping[str, Any]) -> dict[str, Any]:
    profiler = record["server"]["profiler"]
    return {
        "model": record["model"]["name"],
        **{name: record.get(name) for name in ("batch", "prompt_tokens", "output_tokens")},
        "mode": mode_of(record),
        "profiler": profiler["source"] if profiler else "none",
    }


def _steps_of(entry: Entry, phase: str) -> pd.DataFrame:
    steps = series_of(entry.folder, "steps", missing=("phase", "step", "wall_s"))
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
        and all(one.get(name) == profiled.get(name) for name in same)
        and all(one["server"][part] == profiled["server"][part] for part in ("args", "env"))
    )
