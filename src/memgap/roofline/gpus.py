"""The GPUs that are known: peak rates, bandwidth and memory from the vendors' datasheets (`gpus.yaml`)."""

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
        alias=_text(values["alias"]),
        memory_bytes=round(_positive(values["memory_gb"]) * GIB),
        bandwidth_bytes_s=_positive(values["bandwidth_bytes_s"]),
        sms=round(_positive(values["sms"])),
        boost_mhz=None if values.get("boost_mhz") is None else _positive(values["boost_mhz"]),
        flop_s={_text(kind): _positive(rate) for kind, rate in values["flop_s"].items()},
        source=Source(**values["source"]),
        checked=values.get("checked"),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{value!r} is no text")
    return value


def _positive(value: Any) -> float:
    """Return a number; ValueError for anything but a finite one above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ValueError(f"{value!r} is no number above 0")
    return value


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
