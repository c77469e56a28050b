"""Stands in for pynvml with the cards that MEMGAP_TEST_CARDS describes, a JSON list, in every process of a test.

A card has a name, mib, sms, clock, busy, processes and slices (a list of cards, which makes it divided by MIG). UUIDs
begin with GPU-<number>f and MIG-<number><slice>a. What a card has not is refused, as a driver does.
"""

import json
import os
from types import SimpleNamespace
from typing import Any

NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0
CORES = 128


class NVMLError(Exception):
    """What pynvml raises."""


class Card:
    """A handle."""

    def __init__(self, index: int, values: dict[str, Any], part: int | None = None) -> None:
        self.index, self.part, self.values = index, part, values
        self.slices = [Card(index, one, number) for number, one in enumerate(values.get("slices", []))]
        self.uuid = f"GPU-{index}f000000-1111" if part is None else f"MIG-{index}{part}a00000-2222"

    def get(self, name: str) -> Any:
        """Return a value of the card."""
        if name not in self.values:
            raise NVMLError("Not Supported")
        return self.values[name]


def _cards() -> list[Card]:
    return [Card(number, one) for number, one in enumerate(json.loads(os.environ.get("MEMGAP_TEST_CARDS", "[]")))]


def nvmlInit() -> None:  # noqa: N802
    """Find a driver."""


def nvmlShutdown() -> None:  # noqa: N802
    """Leave it."""


def nvmlDeviceGetCount() -> int:  # noqa: N802
    """Return the number of cards."""
    return len(_cards())


def nvmlDeviceGetHandleByIndex(index: int) -> Card:  # noqa: N802
    """Return a card."""
    return _cards()[index]


def nvmlDeviceGetUUID(card: Card) -> str:  # noqa: N802
    """Return its UUID."""
    return card.uuid


def nvmlDeviceGetName(card: Card) -> str:  # noqa: N802
    """Return its name."""
    return str(card.get("name"))


def nvmlDeviceGetPciInfo(card: Card) -> Any:  # noqa: N802
    """Return its place."""
    return SimpleNamespace(busId=card.get("bus"))


def nvmlDeviceGetMigMode(card: Card) -> list[int]:  # noqa: N802
    """Return whether it is divided, now and after the next reset."""
    return [int("slices" in card.values)] * 2


def nvmlDeviceGetMaxMigDeviceCount(card: Card) -> int:  # noqa: N802
    """Return how many slices there can be."""
    return 7


def nvmlDeviceGetMigDeviceHandleByIndex(card: Card, part: int) -> Card:  # noqa: N802
    """Return a slice."""
    if part >= len(card.slices):
        raise NVMLError("Not Found")
    return card.slices[part]


def nvmlDeviceGetGpuInstanceId(card: Card) -> int:  # noqa: N802
    """Return a slice's GPU instance."""
    return 7 + int(card.part or 0)


def nvmlDeviceGetComputeInstanceId(card: Card) -> int:  # noqa: N802
    """Return a slice's compute instance."""
    return 0


def nvmlDeviceGetAttributes(card: Card) -> Any:  # noqa: N802
    """Return the multiprocessors of a slice."""
    return SimpleNamespace(multiprocessorCount=card.get("sms"))


def nvmlDeviceGetNumGpuCores(card: Card) -> int:  # noqa: N802
    """Return the CUDA cores."""
    return int(card.get("sms")) * CORES


def nvmlDeviceGetCudaComputeCapability(card: Card) -> tuple[int, int]:  # noqa: N802
    """Return a capability whose multiprocessors have as many cores."""
    return 9, 0


def nvmlDeviceGetMemoryInfo(card: Card) -> Any:  # noqa: N802
    """Return total and used memory."""
    return SimpleNamespace(total=card.get("mib") * 2**20, used=(1000 if _busy(card) else 10) * 2**20)


def nvmlDeviceGetUtilizationRates(card: Card) -> Any:  # noqa: N802
    """Return the load, which a slice does not tell."""
    if card.part is not None:
        raise NVMLError("Not Supported")
    return SimpleNamespace(gpu=90 if _busy(card) else 0, memory=50 if _busy(card) else 0)


def nvmlDeviceGetPowerUsage(card: Card) -> int:  # noqa: N802
    """Return milliwatts, which a slice does not tell."""
    if card.part is not None:
        raise NVMLError("Not Supported")
    return 600_000 if _busy(card) else 60_000


def nvmlDeviceGetClockInfo(card: Card, kind: int) -> int:  # noqa: N802
    """Return MHz."""
    return int(card.get("clock"))


def nvmlDeviceGetMaxClockInfo(card: Card, kind: int) -> int:  # noqa: N802
    """Return MHz."""
    return int(card.get("clock"))


def nvmlDeviceGetCurrentClocksThrottleReasons(card: Card) -> int:  # noqa: N802
    """Return a bit set of reasons."""
    return int(card.values.get("throttle", 0))


def nvmlDeviceGetComputeRunningProcesses(card: Card) -> list[Any]:  # noqa: N802
    """Return the processes on it."""
    return [SimpleNamespace(pid=pid) for pid in card.values.get("processes", [])]


def _busy(card: Card) -> bool:
    return bool(card.values.get("busy"))


def __getattr__(name: str) -> Any:
    if not name.startswith("nvml"):
        raise AttributeError(name)

    def refuse(*_: Any) -> Any:
        raise NVMLError("Not Supported")

    return refuse
