"""Stands in for pynvml in the processes of a test: one GPU, on which the test's own engines and a neighbour run.

Engines are told by MEMGAP_TEST_FOLDER in their environment, the neighbour by its process id in MEMGAP_TEST_NEIGHBOUR.
"""

import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import psutil

NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0
OURS = os.environ.get("MEMGAP_TEST_FOLDER")
ENGINES = ("memgap.mock_server", "memgap.kinds.offline.worker", "memgap.kinds.static.worker")


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


def nvmlDeviceGetName(device: int) -> str:  # noqa: N802
    """Return its name."""
    return "FAKE"


def nvmlDeviceGetMemoryInfo(device: int) -> SimpleNamespace:  # noqa: N802
    """Return what is used of its memory, in bytes."""
    return SimpleNamespace(used=1000, total=2000)


def nvmlDeviceGetComputeRunningProcesses(device: int) -> list[Any]:  # noqa: N802
    """Return the engines of this test and its neighbour."""
    neighbours = map(int, os.environ.get("MEMGAP_TEST_NEIGHBOUR", "").split())
    return [SimpleNamespace(pid=pid) for pid in [*_engines(), *neighbours]]


def _engines() -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            if _is_engine(process.cmdline()) and process.environ().get("MEMGAP_TEST_FOLDER") == OURS:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def _is_engine(command: list[str]) -> bool:
    return "memgap.host.supervisor" not in command and any(one in command for one in ENGINES)


def __getattr__(name: str) -> Callable[..., Any]:
    if not name.startswith("nvml"):
        raise AttributeError(name)

    def refuse(*_: Any) -> Any:
        raise NVMLError("not supported")

    return refuse
