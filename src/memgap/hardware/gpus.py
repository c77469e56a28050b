"""The GPUs that are known: peak rates, bandwidth and memory from the vendors' datasheets (`gpus.yaml`)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from memgap.errors import UserError
from memgap.models.fields import suggest

PEAK_OF_DTYPE: Mapping[str, str] = {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32"}
"""Which peak matrix products of a dtype run at; FP32 uses the vector units, TF32 being off by default in PyTorch."""

GIB = 2**30


@dataclass(frozen=True)
class Source:
    """Where a GPU's figures are published."""

    title: str
    url: str
    year: int


@dataclass(frozen=True)
class Gpu:
    """One GPU; `flop_s` holds dense peaks in FLOP/s by type (fp64, fp32, tf32, fp16, bf16, fp8, int8), where known."""

    name: str
    alias: str
    memory_bytes: int
    bandwidth_bytes_s: float
    sms: int
    boost_mhz: float | None
    flop_s: Mapping[str, float]
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
    def vector_flop_s(self) -> float:
        """The peak of work outside the tensor units, in FLOP/s; infinite where the table has none."""
        return self.flop_s.get("fp32", float("inf"))


@cache
def known_gpus() -> Mapping[str, Gpu]:
    """Return the known GPUs by NVML's name."""
    table = yaml.safe_load(Path(__file__).with_name("gpus.yaml").read_text("utf-8"))
    return {name: _gpu(name, values) for name, values in table.items()}


def _gpu(name: str, values: Mapping[str, Any]) -> Gpu:
    return Gpu(
        name=name,
        alias=values["alias"],
        memory_bytes=values["memory_gb"] * GIB,
        bandwidth_bytes_s=values["bandwidth_bytes_s"],
        sms=values["sms"],
        boost_mhz=values.get("boost_mhz"),
        flop_s=values["flop_s"],
        source=Source(**values["source"]),
        checked=values.get("checked"),
    )


def gpu_of_nvml(name: str | None) -> Gpu | None:
    """Return the GPU that NVML calls `name`; None for an unknown one, since nothing is guessed."""
    if not name:
        return None
    matches = [known for known in known_gpus() if re.search(rf"{re.escape(known)}(?![A-Za-z0-9])", name)]
    return known_gpus()[max(matches, key=len)] if matches else None


def find_gpu(name: str) -> Gpu:
    """Return the GPU of an alias such as "H200" (upper or lower case) or of NVML's name; UserError for an
    unknown one.
    """
    for gpu in known_gpus().values():
        if name.casefold() in (gpu.alias.casefold(), gpu.name.casefold()):
            return gpu
    found = gpu_of_nvml(name)
    if found is None:
        raise UserError(f"unknown GPU {name!r} ({suggest(name, [gpu.alias for gpu in known_gpus().values()])})")
    return found
