"""The GPUs that are known: peak rates, bandwidth and links from the vendors' datasheets, memory as cards report it
(`gpus.yaml`), and whether a GPU of the driver is one of them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from memgap.errors import DAMAGE, UserError
from memgap.models.fields import suggest

PEAK_OF_DTYPE: Mapping[str, str] = {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32"}
"""Which peak matrix products of a dtype run at; FP32 uses the vector units, TF32 being off by default in PyTorch."""

GIB, MIB = 2**30, 2**20
OTHER_MEMORY = 0.08
"""A card whose memory differs by more than this share of the table's is another one. Drivers differ by 2 %, ECC in GDDR
memory takes 1/16; the nearest two sizes of one name are 17 % apart."""
TOLD_MEMORY = 0.025
"""A smaller difference than that, but larger than this, is told."""
SLOWER_CLOCK = 0.98
"""A card whose highest clock is less than this share of the table's is told to be slower. Many may clock higher."""


@dataclass(frozen=True)
class Source:
    """Where a GPU's figures are published."""

    title: str
    url: str
    year: int


@dataclass(frozen=True)
class Link:
    """How GPUs of a kind are joined in a machine: all links of one GPU together, in bytes/s each way."""

    kind: str
    bytes_s: float


@dataclass(frozen=True)
class Gpu:
    """One GPU; `names` are all that the driver may call it, `memory_bytes` is what it reports.

    `flop_s` holds dense peaks in FLOP/s by type (fp64, fp32, tf32, fp16, bf16, fp8, int8), where known.
    """

    name: str
    names: tuple[str, ...]
    alias: str
    memory_bytes: int
    bandwidth_bytes_s: float
    sms: int
    boost_mhz: float | None
    flop_s: Mapping[str, float]
    link: Link | None
    source: Source
    checked: str | None

    def peak_flop_s(self, dtype: str) -> float:
        """Return the dense peak in FLOP/s of matrix products in `dtype` (float16, bfloat16, float32).

        Raises UserError for an unknown dtype and for one that this GPU has no known rate of.
        """
        if dtype not in PEAK_OF_DTYPE:
            raise UserError(f"no roofline for the dtype {dtype!r} ({suggest(dtype, PEAK_OF_DTYPE)})")
        kind = PEAK_OF_DTYPE[dtype]
        if kind not in self.flop_s:
            raise UserError(f"{self.alias} has no {kind} peak in the GPU table; choose another dtype than {dtype}.")
        return self.flop_s[kind]

    @property
    def link_bytes_s(self) -> float | None:
        """Bytes/s each way between GPUs of a machine, None where it is not known."""
        return self.link.bytes_s if self.link is not None else None

    @property
    def vector_flop_s(self) -> float:
        """The peak of work outside the tensor units, in FLOP/s; infinite where the table has none."""
        return self.flop_s.get("fp32", float("inf"))


@cache
def known_gpus() -> Mapping[str, Gpu]:
    """Return the known GPUs by NVML's name."""
    path = Path(__file__).with_name("gpus.yaml")
    return read_gpus(path.read_text("utf-8"), path.name)


def read_gpus(text: str, where: str) -> dict[str, Gpu]:
    """Return the GPUs of a table by NVML's name; raises UserError, naming `where`, for a table that is none."""
    try:
        table = yaml.safe_load(text)
        return {name: _gpu(name, values) for name, values in table.items()}
    except (yaml.YAMLError, *DAMAGE) as error:
        said = f"{type(error).__name__}: {error}"
        raise UserError(f"{where}: not a table of GPUs ({said}); install memgap anew.") from error


def _gpu(name: str, values: Mapping[str, Any]) -> Gpu:
    return Gpu(
        name=_text(name),
        names=(name, *map(_text, values.get("names", ()))),
        alias=_text(values["alias"]),
        memory_bytes=round(_positive(values["memory_mib"]) * MIB),
        bandwidth_bytes_s=_positive(values["bandwidth_bytes_s"]),
        sms=round(_positive(values["sms"])),
        boost_mhz=None if values.get("boost_mhz") is None else _positive(values["boost_mhz"]),
        flop_s={_text(kind): _positive(rate) for kind, rate in values["flop_s"].items()},
        link=_link(values.get("link")),
        source=Source(**values["source"]),
        checked=values.get("checked"),
    )


def _link(values: Mapping[str, Any] | None) -> Link | None:
    return None if values is None else Link(_text(values["kind"]), _positive(values["bytes_s"]))


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{value!r} is no text")
    return value


def _positive(value: Any) -> float:
    """Return a number; ValueError for anything but a finite one above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ValueError(f"{value!r} is no number above 0")
    return value


def gpu_of_nvml(name: str | None, memory_bytes: float | None = None, sms: int | None = None) -> Gpu | None:
    """Return the GPU that NVML calls `name`; None for an unknown one, since nothing is guessed.

    A part of a GPU, a variant and another memory size have another name. Where the memory in bytes or the number of
    multiprocessors of one GPU is known as well, another one than the table's is another GPU too.
    """
    gpu = _by_name().get(_plain(name or ""))
    if gpu is None or (sms is not None and sms != gpu.sms):
        return None
    if memory_bytes and abs(memory_bytes / gpu.memory_bytes - 1) > OTHER_MEMORY:
        return None
    return gpu


def gpu_of_hardware(hardware: Mapping[str, Any]) -> Gpu | None:
    """Return the GPU of a point's `hardware`, of several equal ones; None for unknown or different ones."""
    name, count = hardware.get("gpu_name"), max(int(hardware.get("gpu_count") or 1), 1)
    each = hardware.get("gpus") or [{"memory_bytes": (hardware.get("gpu_memory_bytes") or 0) / count}]
    found = [gpu_of_nvml(name, one.get("memory_bytes"), one.get("sms")) for one in each]
    return found[0] if all(one is not None for one in found) else None


def bears(name: str, part: str) -> bool:
    """Whether a GPU's name has what a user wrote, in any case: as whole words, so that H20 is no H200, and a MIG
    slice only where the part says MIG.
    """
    where = re.search(rf"(?<![a-z0-9]){re.escape(part.casefold())}(?![a-z0-9])", name.casefold())
    return where is not None and ("mig" in part.casefold().split() or "mig" not in name.casefold().split())


def differences(hardware: Mapping[str, Any]) -> list[str]:
    """Return sentences on what the driver says of GPUs that the table does not; empty for unknown names."""
    gpu = gpu_of_nvml(hardware.get("gpu_name"))
    if gpu is None:
        return []
    said = []
    for one in hardware.get("gpus", []):
        memory, sms, clock = one.get("memory_bytes"), one.get("sms"), one.get("sm_clock_max_mhz")
        if memory and abs(memory / gpu.memory_bytes - 1) > TOLD_MEMORY:
            left_out = _left_out(abs(memory / gpu.memory_bytes - 1) > OTHER_MEMORY)
            said.append(f"has {memory / MIB:,.0f} MiB of memory, the GPU table {gpu.memory_bytes / MIB:,.0f}{left_out}")
        if sms and sms != gpu.sms:
            said.append(f"has {sms} multiprocessors, the GPU table {gpu.sms}{_left_out(True)}")
        if clock and gpu.boost_mhz and clock < SLOWER_CLOCK * gpu.boost_mhz:
            said.append(f"clocks up to {clock:.0f} MHz, the GPU table's up to {gpu.boost_mhz:.0f}: its peaks are lower")
    return [f"this {gpu.name} {one}" for one in dict.fromkeys(said)]


def _left_out(other: bool) -> str:
    return ", so it is taken for another GPU, and shares of peaks are left out" if other else ""


@cache
def _by_name() -> Mapping[str, Gpu]:
    return {_plain(name): gpu for gpu in known_gpus().values() for name in gpu.names}


def _plain(name: str) -> str:
    return name.strip().casefold().removeprefix("nvidia ")


def find_gpu(name: str) -> Gpu:
    """Return the GPU of an alias such as "H200" (upper or lower case) or of NVML's name; UserError for an
    unknown one.
    """
    for gpu in known_gpus().values():
        if name.casefold() == gpu.alias.casefold():
            return gpu
    found = gpu_of_nvml(name)
    if found is None:
        raise UserError(f"unknown GPU {name!r} ({suggest(name, [gpu.alias for gpu in known_gpus().values()])})")
    return found
