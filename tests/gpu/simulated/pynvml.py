"""Stands in for pynvml where the checks simulate: one GPU, on which the simulated engines of this check run."""

import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import psutil

NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0


class NVMLError(Exception):
    """What pynvml raises."""


def nvmlInit() -> None:  # noqa: N802
    """Find a driver."""


def nvmlShutdown() -> None:  # noqa: N802
    """Leave it."""


def nvmlDeviceGetCount() -> int:  # noqa: N802
    """Return that there is one GPU."""
    return 1


def nvmlDeviceGetHandleByIndex(index: int) -> int:  # noqa: N802
    """Return its handle."""
    return index


def nvmlDeviceGetComputeRunningProcesses(device: int) -> list[Any]:  # noqa: N802
    """Return the simulated engines that this check has started."""
    return [SimpleNamespace(pid=one.pid) for one in psutil.process_iter() if _is_engine(one)]


def _is_engine(process: psutil.Process) -> bool:
    try:
        started_by = process.environ().get("MEMGAP_CHECK")
        return process.cmdline()[1:3] == ["-m", "memgap.mock_server"] and started_by == os.environ.get("MEMGAP_CHECK")
    except psutil.Error:
        return False


def __getattr__(name: str) -> Callable[..., Any]:
    if not name.startswith("nvml"):
        raise AttributeError(name)

    def refuse(*_: Any) -> Any:
        raise NVMLError("simulated: not supported")

    return refuse
