"""NVIDIA GPUs through NVML (pynvml); absent without a GPU, and any one missing counter is just empty."""

import contextlib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any

from memgap.telemetry.gpus import CHOSEN, Choice, Device, visible

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
TOGETHER: Mapping[str, Callable[[Sequence[float]], float]] = {
    **dict.fromkeys(("gpu_mem_used_bytes", "gpu_power_w", "gpu_energy_j"), sum),
    **dict.fromkeys(("gpu_sm_clock_mhz", "gpu_mem_clock_mhz"), min),
    **dict.fromkeys(("gpu_temperature_c", "gpu_throttled"), max),
}
"""How a server's GPUs are counted together: bytes, watts and joules are summed; the slowest clock, the highest
temperature and any throttling count, since the GPUs of a server wait for one another; the rest is averaged."""
THROTTLE_BITS = 0x8 | 0x20 | 0x40 | 0x80
"""Clock event reasons that mean heat or power trouble: hardware slowdown, software and hardware thermal, power brake.

The software power cap (0x4) is left out: a busy GPU runs at its cap by design, and its clocks show what that costs.
"""
CORES_PER_SM = {(7, 0): 64, (7, 2): 64, (7, 5): 64, (8, 0): 64, (8, 6): 128, (8, 7): 128, (8, 9): 128, (9, 0): 128}
"""CUDA cores of a multiprocessor by compute capability; from 10.0 on it is 128 as well."""


def column_of(number: int, column: str) -> str:
    """Return what a column is called for the GPU with that place among those of a server: gpu_power_w, gpu1_power_w."""
    return column.replace("gpu_", f"gpu{number}_", 1)


class Nvml:
    """The GPUs that a process of `environment` may use, or those of the ids `only`; used as a context manager.

    The environment is this process's unless given. `chosen` tells the GPUs, `devices` are NVML's handles of them, both
    empty where there is no GPU, no driver or no pynvml; `reason` then says which. `listed` are all that NVML shows.
    """

    def __init__(self, environment: Mapping[str, str] | None = None, only: Collection[str] | None = None) -> None:
        self._environment = os.environ if environment is None else environment
        self._only = only
        self._handles: dict[str, Any] = {}
        self.listed: tuple[Device, ...] = ()
        self.chosen: tuple[Device, ...] = ()
        self.devices: list[Any] = []
        self.reason = ""

    def __enter__(self) -> "Nvml":
        if pynvml is None:
            self.reason = "pynvml is not installed"
            return self
        try:
            pynvml.nvmlInit()
            self.listed = self._list()
        except pynvml.NVMLError as error:
            self.reason = str(error)
            return self
        self.choose(self._choice())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.listed:
            with contextlib.suppress(pynvml.NVMLError):
                pynvml.nvmlShutdown()

    def choose(self, choice: Choice) -> None:
        """Ask about these GPUs from now on."""
        self.chosen = choice.devices
        self.devices = [self._handles[one.id] for one in choice.devices]
        self.reason = "" if self.devices else choice.doubt or "no visible GPU"

    def sample(self) -> Sample:
        """Return the columns that every GPU has, together (see `TOGETHER`), and of several each one's as well."""
        samples = [_sample_one(device) for device in self.devices]
        found = {
            column: TOGETHER.get(column, _mean)([one[column] for one in samples])
            for column in COLUMNS
            if samples and all(column in one for one in samples)
        }
        if len(samples) > 1:
            for number, one in enumerate(samples):
                found.update({column_of(number, column): value for column, value in one.items()})
        return found

    @property
    def own_columns(self) -> list[str]:
        """The further columns of `sample` that are each GPU's own, where there are several."""
        if len(self.devices) < 2:
            return []
        return [column_of(number, column) for number in range(len(self.devices)) for column in COLUMNS[:-1]]

    def processes(self) -> set[int]:
        """Return the ids of the compute processes on the GPUs."""
        return set().union(*(_processes(device) for device in self.devices))

    def holding(self, pids: Collection[int]) -> tuple[Device, ...]:
        """Return the listed GPUs and slices that one of these processes is on."""
        every = [part for one in self.listed for part in (one.slices if one.slices else (one,))]
        return tuple(one for one in every if _processes(self._handles[one.id]) & set(pids))

    def foreign_processes(self, own: Collection[int]) -> Sample:
        """Return how many compute processes besides `own` (process ids) are on the GPUs.

        Empty where none of `own` is listed: then the ids are another namespace's, or the server is not on the GPU yet.
        """
        listed = self.processes()
        if not listed & set(own):
            return {}
        return {"gpu_foreign_processes": float(len(listed - set(own)))}

    def facts(self) -> dict[str, Any]:
        """Return name, memory, count, driver and CUDA version of the GPUs, or an empty mapping without one.

        Memory is that of all together, clocks and the power limit are the lowest; `gpus` has each one's own. Several
        kinds have their names joined, which is the name of no known GPU.
        """
        if not self.devices:
            return {}
        each = [_facts_one(one, handle) for one, handle in zip(self.chosen, self.devices, strict=True)]
        facts: dict[str, Any] = {"gpu_count": len(each)}
        names = list(dict.fromkeys(one["name"] for one in each if "name" in one))
        if names:
            facts["gpu_name"] = " + ".join(names)
        for column, key, together in (
            ("gpu_memory_bytes", "memory_bytes", sum),
            ("gpu_sms", "sms", min),
            ("gpu_sm_clock_max_mhz", "sm_clock_max_mhz", min),
            ("gpu_mem_clock_max_mhz", "mem_clock_max_mhz", min),
            ("gpu_power_limit_w", "power_limit_w", min),
        ):
            if all(key in one for one in each):
                facts[column] = together(one[key] for one in each)
        driver, cuda = _ask("nvmlSystemGetDriverVersion"), _ask("nvmlSystemGetCudaDriverVersion_v2")
        facts |= {} if driver is None else {"driver": _text(driver)}
        facts |= {} if cuda is None else {"cuda": _cuda_version(cuda)}
        return {**facts, "gpus": each}

    def _choice(self) -> Choice:
        if self._only is None:
            return visible(self.listed, self._environment)
        every = {part.id: part for one in self.listed for part in (one, *one.slices)}
        return Choice(tuple(every[id_] for id_ in self._only if id_ in every))

    def _list(self) -> tuple[Device, ...]:
        listed = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = _ask("nvmlDeviceGetHandleByIndex", index)
            if handle is not None:
                listed.append(self._device(index, handle))
        return self._asked_for(tuple(listed))

    def _device(self, index: int, handle: Any) -> Device:
        bus = getattr(_ask("nvmlDeviceGetPciInfo", handle), "busId", "")
        mode = _ask("nvmlDeviceGetMigMode", handle)
        device = Device(index, _said("nvmlDeviceGetUUID", handle), _said("nvmlDeviceGetName", handle), _text(bus))
        self._handles[device.id] = handle
        if mode is None or not mode[0]:
            return device
        slices = []
        for part in range(_ask("nvmlDeviceGetMaxMigDeviceCount", handle) or 0):
            slice_ = _ask("nvmlDeviceGetMigDeviceHandleByIndex", handle, part)
            if slice_ is not None:
                slices.append(self._slice(device, part, slice_))
        return replace(device, divided=True, slices=tuple(slices))

    def _slice(self, owner: Device, part: int, handle: Any, uuid: str = "") -> Device:
        name = _said("nvmlDeviceGetName", handle)
        instance = _ask("nvmlDeviceGetGpuInstanceId", handle), _ask("nvmlDeviceGetComputeInstanceId", handle)
        device = Device(
            owner.index,
            uuid or _said("nvmlDeviceGetUUID", handle),
            name if "MIG" in name else f"{name or owner.name} MIG",
            owner.bus,
            part=part,
            instance=None if None in instance else instance,
        )
        self._handles[device.id] = handle
        return device

    def _asked_for(self, listed: tuple[Device, ...]) -> tuple[Device, ...]:
        """Return the GPUs with the UUIDs that are asked for and that NVML knows although it does not list them."""
        known = {part.uuid for one in listed for part in (one, *one.slices)}
        for entry in self._only or [part.strip() for part in self._environment.get(CHOSEN, "").split(",")]:
            handle = _ask("nvmlDeviceGetHandleByUUID", entry) if entry[:4] in ("GPU-", "MIG-") else None
            if handle is None or entry in known or not listed:
                continue
            if entry.startswith("MIG-"):
                owner = listed[0]
                part = self._slice(owner, len(owner.slices), handle, entry)
                listed = (replace(owner, divided=True, slices=(*owner.slices, part)), *listed[1:])
                continue
            number = _ask("nvmlDeviceGetIndex", handle)
            same = [one for one in listed if not one.uuid and number in (None, one.index)]
            same = same if number is not None else [one for one in same if self._handles[one.id] == handle]
            for one in same:
                self._handles[entry] = handle
                listed = tuple(replace(other, uuid=entry) if other is one else other for other in listed)
        return listed


def _ask(function: str, *arguments: Any) -> Any:
    """Return what NVML answers, None where driver, GPU or this pynvml does not have it."""
    try:
        return getattr(pynvml, function)(*arguments)
    except (pynvml.NVMLError, AttributeError):
        return None


def _said(function: str, handle: Any) -> str:
    value = _ask(function, handle)
    return "" if value is None else _text(value)


def _sample_one(device: Any) -> Sample:
    used, memory = _ask("nvmlDeviceGetUtilizationRates", device), _ask("nvmlDeviceGetMemoryInfo", device)
    power, energy = _ask("nvmlDeviceGetPowerUsage", device), _ask("nvmlDeviceGetTotalEnergyConsumption", device)
    reasons = _ask("nvmlDeviceGetCurrentClocksThrottleReasons", device)
    values: dict[str, float | None] = {
        "gpu_util_fraction": None if used is None else used.gpu / 100,
        "gpu_mem_util_fraction": None if used is None else used.memory / 100,
        "gpu_mem_used_bytes": None if memory is None else float(memory.used),
        "gpu_power_w": None if power is None else power / 1000,
        "gpu_sm_clock_mhz": _ask("nvmlDeviceGetClockInfo", device, pynvml.NVML_CLOCK_SM),
        "gpu_mem_clock_mhz": _ask("nvmlDeviceGetClockInfo", device, pynvml.NVML_CLOCK_MEM),
        "gpu_temperature_c": _ask("nvmlDeviceGetTemperature", device, pynvml.NVML_TEMPERATURE_GPU),
        "gpu_energy_j": None if energy is None else energy / 1000,
        "gpu_throttled": None if reasons is None else float(bool(int(reasons) & THROTTLE_BITS)),
    }
    return {column: float(value) for column, value in values.items() if value is not None}


def _facts_one(device: Device, handle: Any) -> dict[str, Any]:
    """Return what is known of one GPU; a value that the driver does not tell is absent."""
    memory, limit = _ask("nvmlDeviceGetMemoryInfo", handle), _ask("nvmlDeviceGetPowerManagementLimit", handle)
    values = {
        "index": device.index,
        "slice": device.part,
        "name": device.name or None,
        "memory_bytes": None if memory is None else int(memory.total),
        "sms": _multiprocessors(device, handle),
        "sm_clock_max_mhz": _ask("nvmlDeviceGetMaxClockInfo", handle, pynvml.NVML_CLOCK_SM),
        "mem_clock_max_mhz": _ask("nvmlDeviceGetMaxClockInfo", handle, pynvml.NVML_CLOCK_MEM),
        "power_limit_w": None if limit is None else limit / 1000,
    }
    return {name: value for name, value in values.items() if value is not None}


def _multiprocessors(device: Device, handle: Any) -> int | None:
    """Return the multiprocessors of a GPU by its cores, of a slice by its attributes."""
    if device.part is not None:
        found: int | None = getattr(_ask("nvmlDeviceGetAttributes", handle), "multiprocessorCount", None)
        return found
    cores, capability = _ask("nvmlDeviceGetNumGpuCores", handle), _ask("nvmlDeviceGetCudaComputeCapability", handle)
    if not cores or not capability:
        return None
    each = CORES_PER_SM.get(tuple(capability), 128 if capability[0] >= 10 else None)
    return cores // each if each and cores % each == 0 else None


def _processes(device: Any) -> set[int]:
    return {one.pid for one in _ask("nvmlDeviceGetComputeRunningProcesses", device) or ()}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _cuda_version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"
