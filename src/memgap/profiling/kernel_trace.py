"""Reads kernels from the traces of torch.profiler (CUPTI), as vLLM's workers write them."""

import gzip
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from memgap.errors import DAMAGE, one_line

KERNEL_CATEGORIES = ("kernel", "gpu_memcpy", "gpu_memset")
EARLIER_NAMES = {"Kernel": "kernel", "Memcpy": "gpu_memcpy", "Memset": "gpu_memset", "Runtime": "cuda_runtime"}
"""Names of categories until PyTorch 1.11."""


@dataclass(frozen=True)
class Kernel:
    """One kernel on the GPU: the replica that ran it (from 1), start and duration, stream, demangled name."""

    replica: int
    start_s: float
    duration_s: float
    stream: int
    name: str


def category_of(event: Mapping[str, Any]) -> object:
    """Return the category of a trace's event by its name of today."""
    category = event.get("cat")
    return EARLIER_NAMES.get(category, category) if isinstance(category, str) else category


def read_kernels(folders: Sequence[Path]) -> list[Kernel]:
    """Return the kernels of all replicas, each with its folder of traces, in order of their start.

    Starts count from the first kernel of all: the traces of one machine share a clock. A kernel whose times are no
    finite numbers is left out. Raises ValueError for a file that is no trace, or none of whose kernels can be read.
    """
    found: list[tuple[float, Kernel]] = []
    for replica, folder in enumerate(folders, start=1):
        for path in sorted(folder.rglob("*.json*")):
            try:
                base_ns, events = complete_events(path)
                own = [one for one in events if isinstance(one, dict) and category_of(one) in KERNEL_CATEGORIES]
                read = [_kernel(replica, base_ns, event) for event in own]
                if read and not any(read):
                    raise ValueError("no kernel has times")
                found += [one for one in read if one is not None]
            except DAMAGE as error:
                said = one_line(f"{type(error).__name__}: {error}")
                raise ValueError(f"{path.name} is no trace of torch.profiler: {said}") from error
    origin_ns = min((start_ns for start_ns, _ in found), default=0.0)
    kernels = [replace(kernel, start_s=(start_ns - origin_ns) / 1e9) for start_ns, kernel in found]
    return sorted(kernels, key=lambda one: one.start_s)


def _kernel(replica: int, base_ns: float, event: Mapping[str, Any]) -> tuple[float, Kernel] | None:
    """Return when a kernel began, in ns, and what it was; None where its times are no finite numbers."""
    try:
        start_ns, duration_s = base_ns + float(event["ts"]) * 1e3, float(event["dur"]) / 1e6
        stream = int(event.get("args", {}).get("stream", event.get("tid", 0)) or 0)
        name = str(event["name"])
    except DAMAGE:
        return None
    if not (math.isfinite(start_ns) and math.isfinite(duration_s) and duration_s >= 0):
        return None
    return start_ns, Kernel(replica, 0.0, duration_s, stream, name)


def complete_events(path: Path) -> tuple[float, list[Any]]:
    """Return a trace's origin in ns since the epoch and its complete events, with whatever is no event at all.

    Raises one of `DAMAGE` for no trace.
    """
    data = path.read_bytes()
    trace = json.loads(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
    base_ns = float(trace.get("baseTimeNanoseconds", 0))
    if not math.isfinite(base_ns):
        raise ValueError("its time base is no finite number")
    return base_ns, [one for one in trace["traceEvents"] if not isinstance(one, dict) or one.get("ph") == "X"]
