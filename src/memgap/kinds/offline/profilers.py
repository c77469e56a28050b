"""The profilers that may watch a worker: how each is run, and the files that each leaves of a point."""

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from memgap.errors import UserError
from memgap.host.worker import Bare, Wrapper
from memgap.kinds.offline.ranges import point_suffix, step_name
from memgap.profiling.classes import short_name
from memgap.profiling.metrics import metrics_of
from memgap.profiling.ncu import ncu_command, read_ncu
from memgap.profiling.nsys import nsys_export_command, nsys_profile_command, read_gpu_metrics, read_nsys
from memgap.profiling.timeline import Recording, class_table, unclassified_share
from memgap.profiling.torch_trace import read_trace
from memgap.recorded.files import table_gz

Files = tuple[dict[str, bytes], dict[str, float]]
TIMELINE_STEPS = 2
"""Of a profiled window the timelines of so many decode steps are kept; class sums are of all its steps."""


class Profiler(Wrapper, Protocol):
    """One way to watch a worker."""

    def files(self, key: str, folder: Path, scratch: Path) -> Files:
        """Return the files and summary numbers that it leaves of a point. Raises UserError for unreadable output."""


class NoProfiler(Bare):
    """The engine alone."""

    def files(self, key: str, folder: Path, scratch: Path) -> Files:
        """See Profiler."""
        return {}, {}

    def death(self, log: str) -> str:
        """See Wrapper."""
        return "the engine died"


class TorchProfiler(NoProfiler):
    """torch.profiler in the worker, which leaves one trace a phase."""

    patience = 2.0

    def files(self, key: str, folder: Path, scratch: Path) -> Files:
        """See Profiler; a trace without kernels, as on a CPU, is said so."""
        recordings = [read_trace(path) for path in sorted(folder.glob("*.trace.json.gz"))]
        return recorded_files(recordings)


class NcuProfiler(NoProfiler):
    """Nsight Compute around the worker; its table of all points comes at the end."""

    after_the_end = True
    patience = 4.0

    def __init__(self, settings: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> None:
        self._settings = settings
        self._ranges = [
            name + point_suffix(entry["key"]) for entry in entries for name in _steps_of(entry["record"]["window"])
        ]

    def require(self) -> None:
        """See Profiler."""
        _require_program("ncu", "Nsight Compute")

    def command(self, worker: list[str], scratch: Path) -> list[str]:
        """See Profiler."""
        metrics = metrics_of(*self._settings["metrics"])
        log = scratch / "ncu.csv"
        kernels = self._settings["kernels"]
        extra = self._settings.get("args", ())
        return ncu_command(worker, metrics=metrics, ranges=self._ranges, log_file=log, kernel=kernels, extra=extra)

    def files(self, key: str, folder: Path, scratch: Path) -> Files:
        """See Profiler; a point's kernels are those inside the ranges of its steps."""
        export = read_ncu(scratch / "ncu.csv")
        suffix = point_suffix(key)
        mine = [any(name.endswith(suffix) for name in ranges) for ranges in export.table["ranges"]]
        table = export.table[mine].drop(columns="ranges")
        if table.empty:
            raise UserError(export.reason or "ncu saw no kernel of this point in the wanted steps")
        table = table.assign(name=[short_name(name) for name in table["name"]])
        return {"counters.csv.gz": table_gz(table)}, {"counted_kernels": float(len(table))}

    def death(self, log: str) -> str:
        """See Profiler."""
        return "the engine died under ncu"


class NsysProfiler(NoProfiler):
    """Nsight Systems around the worker: kernels of all steps and the GPU's metrics over time."""

    after_the_end = True
    patience = 2.0

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._extra = settings.get("args", ())

    def require(self) -> None:
        """See Profiler."""
        _require_program("nsys", "Nsight Systems")

    def command(self, worker: list[str], scratch: Path) -> list[str]:
        """See Profiler."""
        return nsys_profile_command(worker, scratch / "nsys", extra=self._extra)

    def files(self, key: str, folder: Path, scratch: Path) -> Files:
        """See Profiler."""
        report, database = scratch / "nsys.nsys-rep", scratch / "nsys.sqlite"
        if not database.exists():
            done = subprocess.run(nsys_export_command(report, database), capture_output=True, text=True, check=False)
            if done.returncode:
                said = done.stderr.strip().splitlines()
                raise UserError(f"nsys export failed: {said[-1] if said else f'exit status {done.returncode}'}")
        recording = read_nsys(database)
        point = recording.windows[recording.windows["name"] == f"Point:{key}"]
        if point.empty:
            raise UserError("nsys saw no range of this point")
        start_s, end_s = float(point["start_s"].iloc[0]), float(point["end_s"].iloc[0])
        inside = recording.kernels[recording.kernels["start_s"].between(start_s, end_s)]
        windows = recording.windows[recording.windows["start_s"].between(start_s, end_s)]
        files, summary = recorded_files([Recording(inside, windows)])
        metrics = read_gpu_metrics(database)
        mine = metrics[metrics["time_s"].between(start_s, end_s)]
        if len(mine):
            phases = windows[windows["name"].isin(["Prefill", "Decode"])]
            files["gpu.csv.gz"] = table_gz(_gpu_metrics(mine, phases))
        return files, summary


def profiler_of(settings: Mapping[str, Any] | None, entries: Sequence[Mapping[str, Any]]) -> Profiler:
    """Return the profiler of a session's points (None: the engine alone)."""
    if settings is None:
        return NoProfiler()
    if settings["source"] == "ncu":
        return NcuProfiler(settings, entries)
    return NsysProfiler(settings) if settings["source"] == "nsys" else TorchProfiler()


def recorded_files(recordings: Sequence[Recording]) -> Files:
    """Return class sums and short timelines of recordings; raises UserError where they have no kernel."""
    kernels = [one.kernels[one.kernels["phase"].isin(["prefill", "decode"])] for one in recordings]
    table = pd.concat(kernels, ignore_index=True) if kernels else pd.DataFrame()
    if table.empty:
        reasons = [one.reason for one in recordings if one.reason]
        raise UserError(reasons[0] if reasons else "the profiler saw no kernel in the wanted steps")
    windows = pd.concat([one.windows for one in recordings], ignore_index=True)
    steps = windows[windows["step"].notna()].groupby("phase")
    span_s = (windows["end_s"] - windows["start_s"]).groupby([windows["phase"], windows["step"]]).sum()
    classes = class_table(table)
    classes["steps"] = classes["phase"].map(steps["step"].nunique())
    classes["span_s"] = classes["phase"].map(span_s.groupby("phase").sum())
    return (
        {"classes.csv.gz": table_gz(classes), "timeline.csv.gz": table_gz(_timeline(table, windows))},
        {"profiled_kernels": float(len(table)), "unclassified_fraction": unclassified_share(table)},
    )


def _timeline(kernels: pd.DataFrame, windows: pd.DataFrame) -> pd.DataFrame:
    """Return the first steps of each phase: times from the step's begin, short names."""
    own = windows[windows["step"].notna()].drop_duplicates(["phase", "step"])
    first = own.groupby("phase")["step"].transform(lambda steps: steps.rank(method="first") <= TIMELINE_STEPS)
    kept = own[first].assign(step_s=own["end_s"] - own["start_s"])
    joined = kernels.merge(kept[["phase", "step", "start_s", "step_s"]], on=["phase", "step"], suffixes=("", "_step"))
    # a kernel may begin before its step's range on the GPU's clock; a step begins with its first kernel then
    begin = joined.groupby(["phase", "step"])["start_s"].transform("min")
    origin = pd.concat([joined["start_s_step"], begin], axis=1).min(axis=1)
    return pd.DataFrame(
        {
            "phase": joined["phase"],
            "step": joined["step"],
            "start_ms": (joined["start_s"] - origin) * 1e3,
            "duration_ms": joined["duration_s"] * 1e3,
            "stream": joined["stream"],
            "kernel_class": joined["kernel_class"],
            "name": [short_name(name) for name in joined["name"]],
            "step_ms": joined["step_s"] * 1e3,
            "profiler": joined["source"],
        }
    )


def _gpu_metrics(metrics: pd.DataFrame, phases: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for _, window in phases.iterrows():
        inside = metrics[metrics["time_s"].between(window["start_s"], window["end_s"])]
        rows.append(
            pd.DataFrame(
                {
                    "phase": str(window["name"]).lower(),
                    "time_ms": (inside["time_s"] - window["start_s"]) * 1e3,
                    "metric": inside["metric"],
                    "value_fraction": inside["value_fraction"],
                    "profiler": "nsys",
                }
            )
        )
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()


def _steps_of(window: Mapping[str, int]) -> list[str]:
    prefill = [step_name("prefill", step) for step in range(window["prefill_steps"])]
    first = window["decode_from"]
    return [*prefill, *(step_name("decode", step) for step in range(first, first + window["decode_steps"]))]


def _require_program(program: str, title: str) -> None:
    if shutil.which(program) is None:
        raise UserError(
            f"{program} ({title}) is not on the PATH of this machine; install it, or take profiler.source torch."
        )
