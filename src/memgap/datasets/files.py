"""A dataset as files: `<key>.npz` with the prompts, `<key>.json` beside it with what they are.

The npz holds `prompt_offsets` int64 (requests + 1,), `prompt_ids` int32 (all prompts end to end) and
`output_tokens` int32 (requests,); where the workload has them also `due_s` float64, `conversation` and `group` int32.
Of prompts that are sent as text there is `text` (strings), and no ids.
The JSON holds the description, the realised statistics, the SHA-256 of the npz, and size and SHA-256 of every file that
lengths or text came from.
"""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from memgap.datasets.build import Prompt
from memgap.datasets.spec import spec_fits_key
from memgap.errors import DAMAGE, UserError
from memgap.store.atomic import write_bytes, write_text

SCHEMA = 1

_ARRAYS: Mapping[str, npt.DTypeLike] = {
    "prompt_offsets": np.int64,
    "prompt_ids": np.int32,
    "output_tokens": np.int32,
}
_EXTRA: Mapping[str, npt.DTypeLike] = {
    "due_s": np.float64,
    "conversation": np.int32,
    "group": np.int32,
    "text": np.str_,
}
"""Arrays of one value a request that only some workloads have."""


@dataclass(frozen=True)
class StoredDataset:
    """A dataset read back: its description, realised statistics, source files and prompts."""

    spec: dict[str, Any]
    statistics: dict[str, Any]
    sources: list[dict[str, Any]]
    prompts: list[Prompt]


def dataset_path(folder: Path, spec: Mapping[str, Any]) -> Path:
    """Return where the dataset of `spec` is kept in `folder`: `<folder>/<key>.npz`."""
    return folder / f"{spec['key']}.npz"


def sidecar_path(path: Path) -> Path:
    """Return the JSON file that belongs to the dataset file `path`."""
    return path.with_suffix(".json")


def statistics_of(prompts: Sequence[Prompt]) -> dict[str, Any]:
    """Return {"requests", "prompt_tokens": {...}, "output_tokens": {...}}.

    Each side has total, mean, median, p95, min and max, in tokens; `prompts` must not be empty. Of texts there is
    "prompt_characters" instead, since only a server knows their tokens.
    """

    def side(lengths: Sequence[int]) -> dict[str, float | int]:
        values = np.array(lengths, dtype=np.int64)
        return {
            "total": int(values.sum()),
            "mean": float(values.mean()),
            "median": float(np.median(values)),
            "p95": float(np.percentile(values, 95)),
            "min": int(values.min()),
            "max": int(values.max()),
        }

    texts = [prompt.text for prompt in prompts if prompt.text is not None]
    return {
        "requests": len(prompts),
        **({"prompt_characters": side([len(text) for text in texts])} if texts else {}),
        **({} if texts else {"prompt_tokens": side([len(prompt.token_ids) for prompt in prompts])}),
        "output_tokens": side([prompt.output_tokens for prompt in prompts]),
    }


def save_dataset(
    path: Path,
    spec: Mapping[str, Any],
    prompts: Sequence[Prompt],
    sources: Sequence[Mapping[str, Any]] = (),
    trace: Mapping[str, Any] | None = None,
) -> None:
    """Write `prompts` to `path` (an .npz) and their description beside it, each whole or not at all.

    `trace` says how a trace was read: its unit, and which rows were left out.
    Equal content gives equal bytes. Raises UserError for a path that does not end in .npz or cannot be
    written.
    """
    if path.suffix != ".npz":
        raise UserError(f"{path}: a dataset file must end in .npz")
    offsets = np.zeros(len(prompts) + 1, dtype=np.int64)
    np.cumsum([len(prompt.token_ids) for prompt in prompts], out=offsets[1:])
    buffer = io.BytesIO()
    extra: dict[str, Any] = {
        name: np.array([getattr(prompt, name) for prompt in prompts], dtype=dtype)
        for name, dtype in _EXTRA.items()
        if prompts and getattr(prompts[0], name) is not None
    }
    np.savez_compressed(
        buffer,
        allow_pickle=False,
        prompt_offsets=offsets,
        prompt_ids=np.concatenate([np.array(prompt.token_ids, dtype=np.int32) for prompt in prompts]),
        output_tokens=np.array([prompt.output_tokens for prompt in prompts], dtype=np.int32),
        **extra,
    )
    data = buffer.getvalue()
    sidecar = {
        "schema": SCHEMA,
        "spec": dict(spec),
        "statistics": {**statistics_of(prompts), **({"trace": dict(trace)} if trace is not None else {})},
        "sources": [dict(source) for source in sources],
        "npz_sha256": hashlib.sha256(data).hexdigest(),
    }
    try:
        write_bytes(path, data)
        write_text(sidecar_path(path), json.dumps(sidecar, indent=1, sort_keys=True, allow_nan=False) + "\n")
    except OSError as error:
        raise UserError(f"cannot write the dataset {path}: {error.strerror}") from None


def load_dataset(path: Path) -> StoredDataset:
    """Read the dataset `path` and check that it is whole and is what its description says.

    Raises UserError where a file is missing, garbled or does not belong to the other.
    """
    sidecar = _sidecar(sidecar_path(path))
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the dataset {path}: {error.strerror}") from None
    if sidecar["spec"].get("kind") == "trace" and "trace" not in sidecar["statistics"]:
        raise UserError(
            f"the dataset {path} was read from its trace by an earlier version, which did not check the unit of time; "
            "delete it and its .json to have it built again."
        )
    garbled = UserError(f"the dataset {path} is damaged; delete it and its .json, and let the workflow build it again")
    if hashlib.sha256(data).hexdigest() != sidecar["npz_sha256"]:
        raise garbled
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in _ARRAYS}
            extra = {name: archive[name].tolist() for name in _EXTRA if name in archive.files}
    except DAMAGE:
        raise garbled from None
    offsets, ids, outputs = arrays["prompt_offsets"], arrays["prompt_ids"], arrays["output_tokens"]
    spec = sidecar["spec"]
    if any(arrays[name].dtype != dtype or arrays[name].ndim != 1 for name, dtype in _ARRAYS.items()):
        raise garbled
    if len(offsets) != len(outputs) + 1 or len(outputs) != spec["requests"] or len(outputs) == 0:
        raise garbled
    shortest = 0 if "text" in extra else 1
    if offsets[0] != 0 or offsets[-1] != len(ids) or (np.diff(offsets) < shortest).any() or (outputs < 1).any():
        raise garbled
    if len(ids) and (ids.min() < 0 or ids.max() >= spec["vocabulary_size"]):
        raise garbled
    if any(len(values) != len(outputs) for values in extra.values()):
        raise garbled
    prompts = [
        Prompt(ids[start:end].tolist(), int(output), **{name: values[index] for name, values in extra.items()})
        for index, (start, end, output) in enumerate(zip(offsets[:-1], offsets[1:], outputs, strict=True))
    ]
    return StoredDataset(spec, sidecar["statistics"], sidecar["sources"], prompts)


def _sidecar(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}, the description of a dataset: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise UserError(
            f"{path}, the description of a dataset, is no valid JSON; delete it to have it rebuilt"
        ) from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise UserError(f"{path} is no dataset description of schema {SCHEMA}; delete it to have it rebuilt")
    spec = content.get("spec")
    shapes = {"spec": dict, "statistics": dict, "sources": list, "npz_sha256": str}
    if not all(isinstance(content.get(name), kind) for name, kind in shapes.items()) or not isinstance(spec, dict):
        raise UserError(f"{path}, the description of a dataset, lacks fields; delete it to have it rebuilt")
    try:
        fits = spec_fits_key(spec)
    except DAMAGE:  # not even what JSON may hold
        fits = False
    if not fits:
        raise UserError(f"{path}: the key does not belong to the description; delete it to have it rebuilt")
    return content
