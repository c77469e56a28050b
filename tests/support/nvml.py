"""A stand-in for NVIDIA's driver library."""

from types import SimpleNamespace
from typing import Any


class FakeNvml:
    """Two GPUs; the power of the second cannot be read."""

    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0

    class NVMLError(Exception):
        """What pynvml raises."""

    def __getattr__(self, name: str) -> Any:
        values: dict[str, Any] = {
            "nvmlInit": lambda: None,
            "nvmlShutdown": lambda: None,
            "nvmlDeviceGetCount": lambda: 2,
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetUtilizationRates": lambda d: SimpleNamespace(gpu=50 + 20 * d, memory=10),
            "nvmlDeviceGetMemoryInfo": lambda d: SimpleNamespace(used=100, total=1000),
            "nvmlDeviceGetClockInfo": lambda d, kind: 1000 * kind,
            "nvmlDeviceGetTotalEnergyConsumption": lambda d: 5000,
            "nvmlDeviceGetName": lambda d: b"FAKE",
            "nvmlSystemGetDriverVersion": lambda: "1.2",
            "nvmlSystemGetCudaDriverVersion_v2": lambda: 13000,
        }
        if name in values:
            return values[name]
        return self._refuse

    def _refuse(self, *_: Any) -> Any:
        raise self.NVMLError("not supported")
