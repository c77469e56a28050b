"""Traces of torch.profiler: kernels with the step that launched them."""

import math
from pathlib import Path
from typing import Any

from memgap.errors import DAMAGE, UserError
from memgap.profiling.classes import kernel_class
from memgap.profiling.kernel_trace import KERNEL_CATEGORIES, category_of, complete_events
from memgap.profiling.timeline import Recording, StepFinder, phase_and_step, timeline_table, windows_table

LAUNCHES = ("cuda_runtime", "cuda_driver")
CPU_RANGE, GPU_RANGE = "user_annotation", "gpu_user_annotation"


def read_trace(path: Path) -> Recording:
    """Read a trace, gzipped or not.

    Starts count from the first kernel or step. A kernel belongs to the step (`PrefillStep<i>`, `DecodeStep<i>`)
    inside whose CPU range its launch lies: the launch with the same correlation, which for kernels of a CUDA graph is
    that of the whole graph. A kernel without a recorded launch belongs to the step inside whose GPU range it begins.
    A trace of a CPU has no kernels: an empty timeline, with the reason. Raises UserError for a file that is no trace.
    """
    events, left_out = _events(path)
    kernels, launches = [], {}
    ranges: dict[str, list[dict[str, Any]]] = {CPU_RANGE: [], GPU_RANGE: []}
    for event in events:
        category = category_of(event)
        if category in KERNEL_CATEGORIES:
            kernels.append(event)
        elif category in LAUNCHES:
            launches[_argument(event, "correlation")] = event["ts"]
        elif category in ranges and phase_and_step(event["name"]):
            ranges[category].append(event)
    origin_us = min((event["ts"] for event in [*kernels, *ranges[CPU_RANGE]]), default=0.0)
    windows = {kind: windows_table([_window(event, origin_us) for event in found]) for kind, found in ranges.items()}
    on_cpu, on_gpu = StepFinder(windows[CPU_RANGE]), StepFinder(windows[GPU_RANGE])
    rows: list[dict[str, object]] = []
    for event in kernels:
        launch_us = launches.get(_argument(event, "correlation"))
        start_s = (event["ts"] - origin_us) / 1e6
        phase, step = on_gpu.at(start_s) if launch_us is None else on_cpu.at((launch_us - origin_us) / 1e6)
        stream = _argument(event, "stream")
        rows.append(
            {
                "phase": phase,
                "step": step,
                "start_s": start_s,
                "duration_s": event["dur"] / 1e6,
                "stream": stream if isinstance(stream, int) else None,
                "name": event["name"],
                "kernel_class": kernel_class(event["name"]),
                "source": "torch",
            }
        )
    reason = "" if rows else f"{path.name} has no kernels: torch.profiler saw no work on a GPU (a CPU has none)"
    return Recording(timeline_table(rows), windows[CPU_RANGE], reason, left_out)


def _window(event: dict[str, Any], origin_us: float) -> dict[str, object]:
    start_s = (event["ts"] - origin_us) / 1e6
    return {"name": event["name"], "start_s": start_s, "end_s": start_s + event["dur"] / 1e6}


def _argument(event: dict[str, Any], name: str) -> Any:
    """Return one of an event's arguments; None where it has none, or one that is no number."""
    arguments = event.get("args")
    value = arguments.get(name) if isinstance(arguments, dict) else None
    return value if isinstance(value, int) else None


def _events(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Return a trace's complete events with finite times, and how many have none.

    Raises UserError for a file that is no trace, or in which no event can be read.
    """
    try:
        _, events = complete_events(path)
    except DAMAGE as error:
        raise UserError(
            f"{path}: not a whole trace of torch.profiler ({_said(error)}); measure the point again."
        ) from error
    read = [event for event in events if _read(event)]
    if events and not read:
        raise UserError(f"{path}: not a whole trace of torch.profiler (no event has times); measure the point again.")
    return read, len(events) - len(read)


def _read(event: Any) -> bool:
    """Make an event's times and names what they have to be; returns whether they can be."""
    try:
        event["ts"], event["dur"] = float(event["ts"]), float(event["dur"])
        event["name"], event["cat"] = str(event["name"]), str(event.get("cat"))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return False
    return math.isfinite(event["ts"]) and math.isfinite(event["dur"]) and event["dur"] >= 0


def _said(error: Exception) -> str:
    """Return an error in one line; what a KeyError misses is named."""
    return f"no {error}" if isinstance(error, KeyError) else str(error).replace("\n", " ")
