"""Reads a GGUF file of the formats that are needed here: F32, F16, Q8_0 and Q4_1, each to 32-bit numbers.

The format is that of ggml's documentation (docs/gguf.md): a header, typed values by name, tensors by name with shape,
type and place, then the data. Q8_0 holds 32 numbers as a 16-bit scale and 32 bytes; Q4_1 as a 16-bit scale, a 16-bit
minimum and 16 bytes of two numbers, the lower halves first.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memgap.errors import UserError

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _ARRAY = 8, 9
F32, F16, Q4_1, Q8_0 = 0, 1, 3, 8
BLOCK = 32
_BLOCK_BYTES = {Q4_1: 20, Q8_0: 34}


@dataclass(frozen=True)
class Tensor:
    """Where one tensor lies; `shape` has the slowest dimension first."""

    shape: tuple[int, ...]
    kind: int
    offset: int


class Gguf:
    """One file: `values` by name, and tensors that are read when they are asked for; UserError for another file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with path.open("rb") as file:
                self._read_header(file)
        except (OSError, ValueError, struct.error, KeyError) as error:
            raise UserError(f"{path}: not a GGUF file that can be read ({error})") from None

    def _read_header(self, file: Any) -> None:
        if file.read(4) != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        _, tensors, values = struct.unpack("<IQQ", file.read(20))
        self.values: dict[str, Any] = {}
        for _ in range(values):
            name = _text(file)
            (kind,) = struct.unpack("<I", file.read(4))
            self.values[name] = _value(file, kind)
        self.tensors: dict[str, Tensor] = {}
        for _ in range(tensors):
            name = _text(file)
            (dimensions,) = struct.unpack("<I", file.read(4))
            shape = struct.unpack(f"<{dimensions}Q", file.read(8 * dimensions))
            kind, offset = struct.unpack("<IQ", file.read(12))
            self.tensors[name] = Tensor(tuple(reversed(shape)), kind, offset)
        alignment = int(self.values.get("general.alignment", 32))
        self._data = -(-file.tell() // alignment) * alignment

    def tensor(self, name: str) -> NDArray[np.float32]:
        """Return a tensor as 32-bit numbers; raises UserError for one that is missing or of another type."""
        one = self.tensors.get(name)
        if one is None:
            raise UserError(f"{self._path}: the tensor {name} is missing")
        count = int(np.prod(one.shape))
        if one.kind in (F32, F16):
            kind = np.dtype("<f4" if one.kind == F32 else "<f2")
            return self._bytes(one, count * kind.itemsize).view(kind).astype(np.float32).reshape(one.shape)
        if one.kind not in _BLOCK_BYTES:
            raise UserError(f"{self._path}: the tensor {name} has the type {one.kind}, which is not read here")
        size = _BLOCK_BYTES[one.kind]
        blocks = self._bytes(one, count // BLOCK * size).reshape(-1, size)
        return (_q8(blocks) if one.kind == Q8_0 else _q4(blocks)).reshape(one.shape)

    def _bytes(self, one: Tensor, size: int) -> NDArray[np.uint8]:
        found = np.fromfile(self._path, dtype=np.uint8, count=size, offset=self._data + one.offset)
        if found.size != size:
            raise UserError(f"{self._path}: the file is cut off")
        return found


def _q8(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    scales = blocks[:, :2].copy().view("<f2").astype(np.float32)
    return scales * blocks[:, 2:].copy().view(np.int8).astype(np.float32)


def _q4(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    scales = blocks[:, :2].copy().view("<f2").astype(np.float32)
    least = blocks[:, 2:4].copy().view("<f2").astype(np.float32)
    halves = np.concatenate([blocks[:, 4:] & 0x0F, blocks[:, 4:] >> 4], axis=1).astype(np.float32)
    return scales * halves + least


def _text(file: Any) -> str:
    (length,) = struct.unpack("<Q", file.read(8))
    content: bytes = file.read(length)
    return content.decode("utf-8")


def _value(file: Any, kind: int) -> Any:
    if kind == _TEXT:
        return _text(file)
    if kind == _ARRAY:
        inner, count = struct.unpack("<IQ", file.read(12))
        return [_value(file, inner) for _ in range(count)]
    form = f"<{_SCALARS[kind]}"
    return struct.unpack(form, file.read(struct.calcsize(form)))[0]
