"""Profilers inside the engine's process: torch.profiler around chosen steps, and NVTX ranges for nsys and ncu.

Ranges are named as in the published study: `Initialization`, `Prefill`, `PrefillStep<i>`, `Decode`, `DecodeStep<i>`.
The steps are push/pop ranges of the calling thread, the phases and `Point:<key>` start/end ranges of the process. Under
ncu a step's name ends with its point's, `DecodeStep<i>-<key>`, since several points share one process.
"""

import gzip
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

STEP_NAMES = {"prefill": "PrefillStep", "decode": "DecodeStep"}
PHASE_NAMES = {"prefill": "Prefill", "decode": "Decode"}


def step_name(phase: str, step: int) -> str:
    """Return the name of a step's range."""
    return f"{STEP_NAMES[phase]}{step}"


class NoRanges:
    """No profiler: nothing is called for a step."""

    free = True

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Enclose a phase or a point."""
        return nullcontext()

    def step(self, phase: str, step: int) -> AbstractContextManager[None]:
        """Enclose one step."""
        return nullcontext()

    def finish(self, folder: Path) -> list[str]:
        """Write what was recorded below `folder`; returns the names of the files."""
        return []


class NvtxRanges(NoRanges):
    """NVTX ranges of phases and of the wanted steps; without nsys or ncu around they cost next to nothing."""

    free = False

    def __init__(self, window: Mapping[str, int], suffix: str = "") -> None:
        import torch

        self._nvtx = torch.cuda.nvtx
        self._wanted = _wanted(window)
        self._suffix = suffix

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Enclose a phase or a point in a start/end range."""
        handle = self._nvtx.range_start(name)
        try:
            yield
        finally:
            self._nvtx.range_end(handle)

    @contextmanager
    def step(self, phase: str, step: int) -> Iterator[None]:
        """Enclose one wanted step in a push/pop range."""
        if step not in self._wanted[phase]:
            yield
            return
        self._nvtx.range_push(step_name(phase, step) + self._suffix)
        try:
            yield
        finally:
            self._nvtx.range_pop()


class TorchProfile(NoRanges):
    """torch.profiler over the first `prefill_steps` and over `decode_steps` steps from `decode_from` on.

    Each window is a trace file of its own, so that nothing but the chosen steps is recorded.
    """

    free = False

    def __init__(self, window: Mapping[str, int]) -> None:
        import torch

        self._torch = torch
        self._wanted = _wanted(window)
        self._profile: Any = None
        self._done: list[tuple[str, Any]] = []

    @contextmanager
    def step(self, phase: str, step: int) -> Iterator[None]:
        """Enclose one step; the profiler runs from the first to the last wanted step of a phase."""
        wanted = self._wanted[phase]
        if step not in wanted:
            yield
            return
        if self._profile is None:
            self._start()
        with self._torch.profiler.record_function(step_name(phase, step)):
            yield
            self._synchronize()
        if step == wanted[-1]:
            self.stop(phase)

    def _start(self) -> None:
        activities = [self._torch.profiler.ProfilerActivity.CPU]
        if self._torch.cuda.is_available():
            activities.append(self._torch.profiler.ProfilerActivity.CUDA)
        self._profile = self._torch.profiler.profile(activities=activities)
        self._profile.start()

    def _synchronize(self) -> None:
        if self._torch.cuda.is_available():
            self._torch.cuda.synchronize()

    def stop(self, phase: str) -> None:
        """End the running window, if any."""
        if self._profile is not None:
            self._profile.stop()
            self._done.append((phase, self._profile))
            self._profile = None

    def finish(self, folder: Path) -> list[str]:
        """Write each window's trace as `<phase>.trace.json.gz`."""
        self.stop("decode")
        names = []
        for phase, profile in self._done:
            plain, packed = folder / f"{phase}.trace.json", folder / f"{phase}.trace.json.gz"
            profile.export_chrome_trace(str(plain))
            with plain.open("rb") as source, gzip.open(packed, "wb", compresslevel=5) as target:
                shutil.copyfileobj(source, target)
            plain.unlink()
            names.append(packed.name)
        self._done.clear()
        return names


def ranges_for(profiler: Mapping[str, Any] | None, window: Mapping[str, int], key: str = "") -> NoRanges:
    """Return what encloses the steps of a point with that profiler (None: no profiler); `window`: its wanted steps."""
    if profiler is None:
        return NoRanges()
    if profiler["source"] == "torch":
        return TorchProfile(window)
    return NvtxRanges(window, point_suffix(key) if profiler["source"] == "ncu" else "")


def point_suffix(key: str) -> str:
    """Return what tells a point's steps from another's in ncu's table, which knows names of ranges and no order."""
    return f"-{key[:8]}"


def _wanted(window: Mapping[str, int]) -> dict[str, range]:
    first = window["decode_from"]
    return {"prefill": range(window["prefill_steps"]), "decode": range(first, first + window["decode_steps"])}
