"""The profilers that may watch a worker: how each is run, and the files that each leaves of a point.

Reading a profile needs pandas, which an engine's environment may lack, so that is imported where one is read.
"""

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from memgap.errors import UserError
from memgap.host.worker import Bare, Wrapper
from memgap.kinds.offline.ranges import point_suffix, step_name
from memgap.profiling.kept import kept_traces
from memgap.profiling.metrics import metrics_of

Files = tuple[dict[str, bytes], dict[str, float]]


class Profiler(Wrapper, Protocol):
    """One way to watch a worker."""

    def files(self, key: str, folder: Path, scratch: Path) -> Files:
        """Return the files and summary numbers that it leaves of a point. Raises UserError for unreadable output."""

    def kept(self, folder: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
        """Return the traces that stay with a point, and what it says of them; nothing where none were to."""


class NoProfiler(Bare):
    """The engine alone."""

    def files(self, key: str, folder: Path, scratch: Path) -> Files:
        """See Profiler."""
        return {}, {}

    def kept(self, folder: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
        """See Profiler."""
        return {}, {}

    def death(self, log: str) -> str:
        """See Wrapper."""
        return "the engine died"


class TorchProfiler(NoProfiler):
    """torch.profiler in the worker, which leaves one trace a phase."""

    patience = 2.0

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._keep = bool(settings.get("keep"))

    def kept(self, folder: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
        """See Profiler."""
        if not self._keep:
            return {}, {}
        ending = ".trace.json.gz"
        return kept_traces({f"trace-{one.name.removesuffix(ending)}": one for one in sorted(folder.glob(f"*{ending}"))})

    def files(self, key: str, folder: Path, scratch: Path) -> Files:
        """See Profiler; a trace without kernels, as on a CPU, is said so."""
        from memgap.kinds.offline.profiles import torch_files

        return torch_files(folder)


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
        from memgap.profiling.ncu import ncu_command

        metrics = metrics_of(*self._settings["metrics"])
        log = scratch / "ncu.csv"
        kernels = self._settings["kernels"]
        extra = self._settings.get("args", ())
        return ncu_command(worker, metrics=metrics, ranges=self._ranges, log_file=log, kernel=kernels, extra=extra)

    def files(self, key: str, folder: Path, scratch: Path) -> Files:
        """See Profiler; a point's kernels are those inside the ranges of its steps."""
        from memgap.kinds.offline.profiles import ncu_files

        return ncu_files(key, scratch / "ncu.csv")

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
        from memgap.profiling.nsys import nsys_profile_command

        return nsys_profile_command(worker, scratch / "nsys", extra=self._extra)

    def files(self, key: str, folder: Path, scratch: Path) -> Files:
        """See Profiler."""
        from memgap.kinds.offline.profiles import nsys_files
        from memgap.profiling.nsys import nsys_export_command

        report, database = scratch / "nsys.nsys-rep", scratch / "nsys.sqlite"
        if not database.exists():
            done = subprocess.run(nsys_export_command(report, database), capture_output=True, text=True, check=False)
            if done.returncode:
                said = done.stderr.strip().splitlines()
                raise UserError(f"nsys export failed: {said[-1] if said else f'exit status {done.returncode}'}")
        return nsys_files(key, database)


def profiler_of(settings: Mapping[str, Any] | None, entries: Sequence[Mapping[str, Any]]) -> Profiler:
    """Return the profiler of a session's points (None: the engine alone)."""
    if settings is None:
        return NoProfiler()
    if settings["source"] == "ncu":
        return NcuProfiler(settings, entries)
    return NsysProfiler(settings) if settings["source"] == "nsys" else TorchProfiler(settings)


def _steps_of(window: Mapping[str, int]) -> list[str]:
    prefill = [step_name("prefill", step) for step in range(window["prefill_steps"])]
    first = window["decode_from"]
    return [*prefill, *(step_name("decode", step) for step in range(first, first + window["decode_steps"]))]


def _require_program(program: str, title: str) -> None:
    if shutil.which(program) is None:
        raise UserError(
            f"{program} ({title}) is not on the PATH of this machine; install it, or take profiler.source torch."
        )
