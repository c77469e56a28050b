"""The device counters of a session's unprofiled batches: a sampler beside the worker, and their means over a phase."""

import csv
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from memgap.telemetry.gpm import METRICS

Row = dict[str, float]


class GpmSampler:
    """A process that samples NVML's GPM counters of the GPUs of these ids; used as a context manager.

    None stands for the first GPU that this process may use.
    """

    def __init__(self, out: Path, gpus: Sequence[str] | None = None) -> None:
        self._out = out
        self._gpus = gpus
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "GpmSampler":
        argv = [sys.executable, "-m", "memgap.telemetry.gpm", "--out", str(self._out)]
        argv += ["--gpus", ",".join(self._gpus)] if self._gpus is not None else []
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None or self._process.stdin is None:
            return
        self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def rows(self, start_s: float, end_s: float) -> list[Row]:
        """Return the rows that ended in a window of monotonic time; empty without counters."""
        try:
            with self._out.open(encoding="utf-8", errors="replace", newline="") as file:
                lines = (line.replace("\0", "") for line in file if line.endswith("\n"))
                found = [_finite(row) for row in csv.DictReader(lines, quoting=csv.QUOTE_NONE)]
        except OSError:
            return []
        return [row for row in found if start_s < row.get("time_monotonic_s", -1.0) <= end_s]


def _finite(row: Mapping[str | None, Any]) -> Row:
    """Return the numbers of a row; a counter that NVML gives as "not a number" is absent, and so is all of a row with
    other cells than the header has."""
    if None in row or None in row.values():
        return {}
    numbers = {}
    for name, value in row.items():
        try:
            numbers[str(name)] = float(value)
        except ValueError:
            continue
    return {name: value for name, value in numbers.items() if math.isfinite(value)}


def phase_means(rows: list[Row], phase: str) -> dict[str, float]:
    """Return `<phase>_<counter>_{mean,max}_fraction`; nothing for a counter without samples."""
    found = {}
    for name in METRICS:
        values = [row[f"{name}_fraction"] for row in rows if f"{name}_fraction" in row]
        if values:
            found[f"{phase}_{name}_mean_fraction"] = sum(values) / len(values)
            found[f"{phase}_{name}_max_fraction"] = max(values)
    return found
