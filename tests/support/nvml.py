"""A stand-in for NVIDIA's driver library."""

import importlib.util
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from memgap.telemetry import nvml
from memgap.telemetry.gpus import CHOSEN, INJECTED, ORDER


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


CARDS = Path(__file__).with_name("cards")
H100 = {"name": "NVIDIA H100 80GB HBM3", "mib": 81559, "sms": 132, "clock": 1980}


def use_cards(monkeypatch: pytest.MonkeyPatch, *cards: dict[str, Any]) -> None:
    """Let this process and those that it starts see these cards through a stand-in for pynvml, see cards/pynvml.py."""
    spec = importlib.util.spec_from_file_location("cards_pynvml", CARDS / "pynvml.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(nvml, "pynvml", module)
    monkeypatch.setenv("MEMGAP_TEST_CARDS", json.dumps(cards))
    path = os.pathsep.join(filter(None, [str(CARDS), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("PYTHONPATH", path)
    for name in (CHOSEN, ORDER, INJECTED):
        monkeypatch.delenv(name, raising=False)
