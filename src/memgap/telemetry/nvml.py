"""NVIDIA GPUs through NVML (pynvml); absent without a GPU, and any one missing counter is just empty."""

import contextlib
import os
from collections.abc import Callable, Collection
from types import TracebackType
from typing import Any

try:
    import pynvml
except ImportError:
    pynvml = None

Sample = dict[str, float]

COLUMNS = (
    "gpu_util_fraction",
    "gpu_mem_util_fraction",
    "gpu_mem_used_bytes",
    "gpu_power_w",
    "gpu_sm_clock_mhz",
    "gpu_mem_clock_mhz",
    "gpu_temperature_c",
    "gpu_energy_j",
    "gpu_throttled",
    "gpu_foreign_processes",
)
THROTTLE_BITS = 0x8 | 0x20 | 0x40 | 0x80
"""Clock event reasons that mean heat or power trouble: hardware slowdown, software and hardware thermal, power brake.

The software power cap (0x4) is left out: a busy GPU runs at its cap by design, and its clocks show what that costs.
"""


class Nvml:
    """The GPUs that this process may use (CUDA_VISIBLE_DEVICES); used as a context manager.

    `devices` is empty where there is no GPU, no driver or no pynvml; `reason` then says which.
    """

    def __init__(self) -> None:
        self.devices: list[Any] = []
        self.reason = ""

    def __enter__(self) -> "Nvml":
        if pynvml is None:
            self.reason = "pynvml is not installed"
            return self
        try:
            pynvml.nvmlInit()
            self.devices = _visible_devices()
            self.reason = "" if self.devices else "no visible GPU"
        except pynvml.NVMLError as error:
            self.reason = str(error)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.devices:
            with contextlib.suppress(pynvml.NVMLError):
                pynvml.nvmlShutdown()

    def sample(self) -> Sample:
        """Return the columns of `COLUMNS` that can be read: memory, power and energy summed, the rest averaged."""
        merged: dict[str, list[float]] = {}
        for device in self.devices:
            for column, value in _sample_one(device).items():
                merged.setdefault(column, []).append(value)
        summed = ("gpu_mem_used_bytes", "gpu_power_w", "gpu_energy_j")
        return {
            column: sum(values) if column in summed else sum(values) / len(values) for column, values in merged.items()
        }

    def processes(self) -> set[int]:
        """Return the ids of the compute processes on the GPUs."""
        listed: set[int] = set()
        for device in self.devices:
            with contextlib.suppress(pynvml.NVMLError):
                listed |= {one.pid for one in pynvml.nvmlDeviceGetComputeRunningProcesses(device)}
        return listed

    def foreign_processes(self, own: Collection[int]) -> Sample:
        """Return how many compute processes besides `own` (process ids) are on the GPUs.

        Empty where none of `own` is listed: then the ids are another namespace's, or the server is not on the GPU yet.
        """
        listed = self.processes()
        if not listed & set(own):
            return {}
        return {"gpu_foreign_processes": float(len(listed - set(own)))}

    def facts(self) -> dict[str, Any]:
        """Return name, memory, count, driver and CUDA version of the GPUs, or an empty mapping without one."""
        if not self.devices:
            return {}
        facts: dict[str, Any] = {"gpu_count": len(self.devices)}
        first = self.devices[0]
        readers: dict[str, Callable[[], Any]] = {
            "gpu_name": lambda: _text(pynvml.nvmlDeviceGetName(first)),
            "gpu_memory_bytes": lambda: sum(int(pynvml.nvmlDeviceGetMemoryInfo(one).total) for one in self.devices),
            "driver": lambda: _text(pynvml.nvmlSystemGetDriverVersion()),
            "cuda": lambda: _cuda_version(pynvml.nvmlSystemGetCudaDriverVersion_v2()),
            "gpu_sm_clock_max_mhz": lambda: pynvml.nvmlDeviceGetMaxClockInfo(first, pynvml.NVML_CLOCK_SM),
            "gpu_mem_clock_max_mhz": lambda: pynvml.nvmlDeviceGetMaxClockInfo(first, pynvml.NVML_CLOCK_MEM),
            "gpu_power_limit_w": lambda: pynvml.nvmlDeviceGetPowerManagementLimit(first) / 1000,
        }
        for column, read in readers.items():
            with contextlib.suppress(pynvml.NVMLError):
                facts[column] = read()
        return facts


def _visible_devices() -> list[Any]:
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
    handles = []
    for entry in (part.strip() for part in chosen.split(",") if part.strip()):
        if entry.isdigit():
            handles.append(pynvml.nvmlDeviceGetHandleByIndex(int(entry)))
        else:
            handles.append(pynvml.nvmlDeviceGetHandleByUUID(entry))
    return handles


def _sample_one(device: Any) -> Sample:
    readers: dict[str, Callable[[], float]] = {
        "gpu_util_fraction": lambda: pynvml.nvmlDeviceGetUtilizationRates(device).gpu / 100,
        "gpu_mem_util_fraction": lambda: pynvml.nvmlDeviceGetUtilizationRates(device).memory / 100,
        "gpu_mem_used_bytes": lambda: float(pynvml.nvmlDeviceGetMemoryInfo(device).used),
        "gpu_power_w": lambda: pynvml.nvmlDeviceGetPowerUsage(device) / 1000,
        "gpu_sm_clock_mhz": lambda: float(pynvml.nvmlDeviceGetClockInfo(device, pynvml.NVML_CLOCK_SM)),
        "gpu_mem_clock_mhz": lambda: float(pynvml.nvmlDeviceGetClockInfo(device, pynvml.NVML_CLOCK_MEM)),
        "gpu_temperature_c": lambda: float(pynvml.nvmlDeviceGetTemperature(device, pynvml.NVML_TEMPERATURE_GPU)),
        "gpu_energy_j": lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(device) / 1000,
        "gpu_throttled": lambda: float(bool(_clock_reasons(device) & THROTTLE_BITS)),
    }
    sample: Sample = {}
    for column, read in readers.items():
        with contextlib.suppress(pynvml.NVMLError):
            sample[column] = read()
    return sample


def _clock_reasons(device: Any) -> int:
    return int(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(device))


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _cuda_version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"
