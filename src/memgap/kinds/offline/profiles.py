"""What is kept of a profile: sums of kernel classes, short timelines, counters, and the GPU's metrics over time."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from memgap.errors import UserError
from memgap.kinds.offline.ranges import point_suffix
from memgap.profiling.classes import short_name
from memgap.profiling.ncu import read_ncu
from memgap.profiling.nsys import read_gpu_metrics, read_nsys
from memgap.profiling.timeline import Recording, class_table, unclassified_share
from memgap.profiling.torch_trace import read_trace
from memgap.recorded.files import table_gz

Files = tuple[dict[str, bytes], dict[str, float]]
TIMELINE_STEPS = 2
"""Of a profiled window the timelines of so many decode steps are kept; class sums are of all its steps."""


def torch_files(folder: Path) -> Files:
    """Return the files and summary numbers of torch.profiler's traces in `folder`, one a phase."""
    return recorded_files([read_trace(path) for path in sorted(folder.glob("*.trace.json.gz"))])


def ncu_files(key: str, log: Path) -> Files:
    """Return those of ncu's table: a point's kernels are those inside the ranges of its steps."""
    export = read_ncu(log)
    suffix = point_suffix(key)
    mine = [any(name.endswith(suffix) for name in ranges) for ranges in export.table["ranges"]]
    table = export.table[mine].drop(columns="ranges")
    if table.empty:
        raise UserError(export.reason or "ncu saw no kernel of this point in the wanted steps")
    table = table.assign(name=[short_name(name) for name in table["name"]])
    counted = {"counted_kernels": float(len(table)), **_left_out(export.left_out)}
    return {"counters.csv.gz": table_gz(table)}, counted


def nsys_files(key: str, database: Path) -> Files:
    """Return those of nsys's database, inside the range of the point."""
    recording = read_nsys(database)
    point = recording.windows[recording.windows["name"] == f"Point:{key}"]
    if point.empty:
        raise UserError("nsys saw no range of this point")
    start_s, end_s = float(point["start_s"].iloc[0]), float(point["end_s"].iloc[0])
    inside = recording.kernels[recording.kernels["start_s"].between(start_s, end_s)]
    windows = recording.windows[recording.windows["start_s"].between(start_s, end_s)]
    files, summary = recorded_files([Recording(inside, windows, left_out=recording.left_out)])
    metrics = read_gpu_metrics(database)
    mine = metrics[metrics["time_s"].between(start_s, end_s)]
    if len(mine):
        phases = windows[windows["name"].isin(["Prefill", "Decode"])]
        files["gpu.csv.gz"] = table_gz(_gpu_metrics(mine, phases))
    return files, summary


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
        {
            "profiled_kernels": float(len(table)),
            "unclassified_fraction": unclassified_share(table),
            **_left_out(sum(one.left_out for one in recordings)),
        },
    )


def _left_out(count: int) -> dict[str, float]:
    """Return how many events of a profiler could not be read, nothing where all could."""
    return {"profiler_events_left_out": float(count)} if count else {}


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
