"""Reads kernels from the traces of torch.profiler (CUPTI), as vLLM's workers write them."""

import gzip
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KERNEL_CATEGORIES = ("kernel", "gpu_memcpy", "gpu_memset")


@dataclass(frozen=True)
class Kernel:
    """One kernel on the GPU: the replica that ran it (from 1), start and duration, stream, demangled name."""

    replica: int
    start_s: float
    duration_s: float
    stream: int
    name: str


def read_kernels(folders: Sequence[Path]) -> list[Kernel]:
    """Return the kernels of all replicas, each with its folder of traces, in order of their start.

    Starts count from the first kernel of all: the traces of one machine share a clock. Raises ValueError for a file
    that is no trace.
    """
    found: list[tuple[int, dict[str, Any], float]] = []
    for replica, folder in enumerate(folders, start=1):
        for path in sorted(folder.rglob("*.json*")):
            base_ns, events = _read_trace(path)
            found += [(replica, event, base_ns + float(event["ts"]) * 1e3) for event in events]
    if not found:
        return []
    origin_ns = min(start_ns for _, _, start_ns in found)
    kernels = [
        Kernel(
            replica,
            (start_ns - origin_ns) / 1e9,
            float(event["dur"]) / 1e6,
            int(event.get("args", {}).get("stream", event.get("tid", 0)) or 0),
            str(event["name"]),
        )
        for replica, event, start_ns in found
    ]
    return sorted(kernels, key=lambda one: one.start_s)


def _read_trace(path: Path) -> tuple[float, Iterable[dict[str, Any]]]:
    """Return the trace's origin in ns since the epoch and its kernel events."""
    try:
        data = path.read_bytes()
        trace = json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
        events = trace["traceEvents"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path.name} is no trace of torch.profiler: {error}") from error
    kept = (event for event in events if event.get("cat") in KERNEL_CATEGORIES and event.get("ph") == "X")
    return float(trace.get("baseTimeNanoseconds", 0)), kept
