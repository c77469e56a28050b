"""Writes a safetensors file tensor by tensor, in bfloat16, float16 or float32: a JSON header, then the numbers."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_NAMES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}


def write_safetensors(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: str,
    tensors: Iterable[tuple[str, NDArray[np.float32]]],
) -> None:
    """Write the tensors, which come in the order of `shapes` so that one is in memory at a time.

    Raises ValueError where a tensor is not the next one or has another shape, KeyError for an unknown dtype.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    place = 0
    for name, shape in shapes.items():
        size = int(np.prod(shape)) * _BYTES[dtype]
        header[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    waiting = iter(shapes.items())
    partial = path.with_name(path.name + ".part")
    with partial.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, values in tensors:
            expected = next(waiting, None)
            if expected != (name, values.shape):
                raise ValueError(f"{name} of shape {values.shape} came in place of {expected}")
            file.write(_encoded(values, dtype).tobytes())
        if (left := next(waiting, None)) is not None:
            raise ValueError(f"{left[0]} is missing")
    partial.replace(path)


def _encoded(values: NDArray[np.float32], dtype: str) -> NDArray[np.generic]:
    if dtype == "float32":
        return values.astype("<f4")
    if dtype == "float16":
        return values.astype("<f2")
    bits = np.ascontiguousarray(values, dtype="<f4").view(np.uint32)
    rounded = bits + 0x7FFF + ((bits >> 16) & 1)  # to the nearest, halves to the even one
    return (rounded >> 16).astype("<u2")
