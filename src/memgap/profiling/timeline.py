"""Kernels in time, one record for all profilers, and what a phase's GPU time went to."""

import re
from dataclasses import dataclass, field

import pandas as pd

from memgap.profiling.classes import UNCLASSIFIED
from memgap.profiling.overlap import length_s

COLUMNS = ("phase", "step", "start_s", "duration_s", "stream", "name", "kernel_class", "source")
"""Columns of a timeline: `start_s` counts from the recording's first event (NaN where the profiler has no clock),
`phase` is `prefill`, `decode` or empty, `step` counts from 0 in each phase (missing outside of steps), `source` is
the profiler."""

WINDOW_COLUMNS = ("name", "phase", "step", "start_s", "end_s")
"""Columns of windows: ranges of the program on the clock of `start_s`; a mark has `end_s` equal to `start_s`."""

_STEP = re.compile(r"^(Prefill|Decode)Step(\d+)(?:-\w+)?$")


def _no_kernels() -> pd.DataFrame:
    return timeline_table([])


def _no_windows() -> pd.DataFrame:
    return windows_table([])


@dataclass(frozen=True)
class Recording:
    """What a profiler recorded: kernels (`COLUMNS`), the program's ranges (`WINDOW_COLUMNS`), and why there are no
    kernels where there are none. `left_out`: events whose times were no finite numbers.
    """

    kernels: pd.DataFrame = field(default_factory=_no_kernels)
    windows: pd.DataFrame = field(default_factory=_no_windows)
    reason: str = ""
    left_out: int = 0


def phase_and_step(name: str) -> tuple[str, int] | None:
    """Return phase and step of a range named `PrefillStep<i>` or `DecodeStep<i>`, with or without a point's `-<key>`;
    None for another name.
    """
    match = _STEP.match(name)
    return (match[1].lower(), int(match[2])) if match else None


def timeline_table(rows: list[dict[str, object]]) -> pd.DataFrame:
    """Return rows as a timeline, in order of their start."""
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    types = {"start_s": "float64", "duration_s": "float64", "step": "Int64", "stream": "Int64"}
    return table.astype(types).sort_values("start_s", kind="stable", ignore_index=True)


def windows_table(rows: list[dict[str, object]]) -> pd.DataFrame:
    """Return rows with name, start_s and end_s as windows, in order of their start, with phase and step by their
    names."""
    steps = [phase_and_step(str(row["name"])) or ("", None) for row in rows]
    named = [{**row, "phase": phase, "step": step} for row, (phase, step) in zip(rows, steps, strict=True)]
    table = pd.DataFrame(named, columns=list(WINDOW_COLUMNS))
    table = table.astype({"start_s": "float64", "end_s": "float64", "step": "Int64"})
    return table.sort_values("start_s", kind="stable", ignore_index=True)


class StepFinder:
    """Which step a moment lies in, after the windows of one recording."""

    def __init__(self, windows: pd.DataFrame) -> None:
        steps = windows[windows["step"].notna()]
        self._starts = steps["start_s"].to_numpy()
        self._ends = steps["end_s"].to_numpy()
        self._steps = [(str(phase), int(step)) for phase, step in zip(steps["phase"], steps["step"], strict=True)]

    def at(self, moment_s: float) -> tuple[str, int | None]:
        """Return phase and step of the step that began last before the moment and has not ended; else an empty
        phase."""
        place = int(self._starts.searchsorted(moment_s, side="right")) - 1
        if place >= 0 and moment_s <= self._ends[place]:
            return self._steps[place]
        return "", None


def class_table(timeline: pd.DataFrame) -> pd.DataFrame:
    """Return one row a phase and kernel class: `kernels` (how many), `gpu_s` (sum of durations), and `busy_s`, the
    union of all the phase's kernels (the same on all its rows; NaN without a clock). `gpu_s` exceeds `busy_s` where
    kernels overlap.
    """
    columns = ["phase", "kernel_class", "kernels", "gpu_s", "busy_s"]
    if timeline.empty:
        return pd.DataFrame(columns=columns)
    rows = []
    for phase, part in timeline.groupby("phase", sort=False):
        ends = part["start_s"] + part["duration_s"]
        known = part["start_s"].notna().all()
        busy_s = (
            length_s(pd.concat([part["start_s"], ends], axis=1).to_numpy(dtype="float64")) if known else float("nan")
        )
        for kind, members in part.groupby("kernel_class"):
            rows.append([phase, kind, len(members), float(members["duration_s"].sum()), busy_s])
    table = pd.DataFrame(rows, columns=columns)
    return table.sort_values(["phase", "gpu_s"], ascending=[True, False], kind="stable", ignore_index=True)


def unclassified_share(timeline: pd.DataFrame) -> float:
    """Return the part of all GPU time in kernels that no rule knows; NaN without kernels."""
    total = float(timeline["duration_s"].sum())
    if not total:
        return float("nan")
    return float(timeline.loc[timeline["kernel_class"] == UNCLASSIFIED, "duration_s"].sum()) / total
