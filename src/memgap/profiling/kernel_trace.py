"""Reads kernels from the traces of torch.profiler (CUPTI), as vLLM's workers write them."""

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from memgap.errors import DAMAGE, one_line

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
    found: list[tuple[float, Kernel]] = []
    for replica, folder in enumerate(folders, start=1):
        for path in sorted(folder.rglob("*.json*")):
            try:
                base_ns, events = complete_events(path)
                own = [event for event in events if event.get("cat") in KERNEL_CATEGORIES]
                found += [(base_ns + float(event["ts"]) * 1e3, _kernel(replica, event)) for event in own]
            except DAMAGE as error:
                said = one_line(f"{type(error).__name__}: {error}")
                raise ValueError(f"{path.name} is no trace of torch.profiler: {said}") from error
    origin_ns = min((start_ns for start_ns, _ in found), default=0.0)
    kernels = [replace(kernel, start_s=(start_ns - origin_ns) / 1e9) for start_ns, kernel in found]
    return sorted(kernels, key=lambda one: one.start_s)


def _kernel(replica: int, event: Mapping[str, Any]) -> Kernel:
    stream = event.get("args", {}).get("stream", event.get("tid", 0)) or 0
    return Kernel(replica, 0.0, float(event["dur"]) / 1e6, int(stream), str(event["name"]))


def complete_events(path: Path) -> tuple[float, list[dict[str, Any]]]:
    """Return a trace's origin in ns since the epoch and its complete events; raises one of `DAMAGE` for no trace."""
    data = path.read_bytes()
    trace = json.loads(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
    return float(trace.get("baseTimeNanoseconds", 0)), [one for one in trace["traceEvents"] if one.get("ph") == "X"]
