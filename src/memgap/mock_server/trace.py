"""The mock's profiler: each step of the engine as one kernel, in the layout of torch.profiler's traces."""

import gzip
import json
import os
from pathlib import Path


class Trace:
    """Kernels between /start_profile and /stop_profile; times in ns of the system's clock."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._kernels: list[tuple[int, int]] = []
        self._on = False

    def start(self) -> None:
        """Begin to record."""
        self._kernels, self._on = [], True

    def step(self, start_ns: int, duration_s: float, busy_share: float = 0.8) -> None:
        """Record a step, whose kernel fills the first part of it."""
        if self._on:
            self._kernels.append((start_ns, round(duration_s * busy_share * 1e9)))

    def write(self) -> None:
        """End the recording and write it."""
        self._on = False
        origin_ns = self._kernels[0][0] if self._kernels else 0
        events = [
            {
                "ph": "X",
                "cat": "kernel",
                "name": "mock_step_kernel",
                "ts": (start_ns - origin_ns) / 1e3,
                "dur": length_ns / 1e3,
                "args": {"stream": 7},
            }
            for start_ns, length_ns in self._kernels
        ]
        trace = {"baseTimeNanoseconds": origin_ns, "traceEvents": events}
        folder = Path(self._folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"mock.{os.getpid()}.pt.trace.json.gz").write_bytes(gzip.compress(json.dumps(trace).encode()))
