"""A checkpoint of random numbers, for engines that have no dummy weights of their own.

Names and shapes of its tensors are those of the model that transformers builds from the folder's config.json, asked of
the interpreter that has it; the numbers are normal with the usual spread and the same for the same model.
"""

import hashlib
import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memgap.errors import UserError
from memgap.models.safetensors import write_safetensors

SPREAD = 0.02
TIMEOUT_S = 600.0
ASK = """
import json, sys, torch, transformers
with torch.device("meta"):
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(sys.argv[1]))
model.tie_weights()
seen, shapes = set(), {}
for name, one in model.named_parameters():
    if id(one) not in seen:
        seen.add(id(one))
        shapes[name] = list(one.shape)
json.dump(shapes, sys.stdout)
"""
"""What the interpreter with transformers is asked: each tensor's name and shape, a shared one once."""


def write_random_file(model: Mapping[str, Any], folder: Path, python: str) -> None:
    """Write model.safetensors beside the config.json in `folder`; `python` is an interpreter with transformers.

    Raises UserError for rounded weights, and where the model cannot be built or the file cannot be written.
    """
    if model["architecture"].get("quantization") is not None:
        raise UserError(f"model {model['name']}: weights of random-file are not rounded; drop its quantization")
    shapes = _asked(model["name"], folder, python)
    try:
        write_safetensors(folder / "model.safetensors", shapes, model["dtype"], _numbers(model["name"], shapes))
    except OSError as error:
        raise UserError(f"cannot write the model into {folder}: {error.strerror}") from None


def _asked(name: str, folder: Path, python: str) -> dict[str, tuple[int, ...]]:
    try:
        done = subprocess.run(
            [python, "-c", ASK, str(folder)], capture_output=True, text=True, check=False, timeout=TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"model {name}: {python} does not say which tensors it has ({error})") from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UserError(f"model {name}: transformers cannot build it: {said}")
    return {tensor: tuple(shape) for tensor, shape in json.loads(done.stdout).items()}


def _numbers(name: str, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield each tensor: norms' scales are ones, biases zeros, all others random from a seed of model and tensor."""
    for tensor, shape in shapes.items():
        if len(shape) == 1:
            yield tensor, np.full(shape, 0.0 if tensor.endswith("bias") else 1.0, dtype=np.float32)
        else:
            seed = int.from_bytes(hashlib.sha256(f"{name}/{tensor}".encode()).digest()[:8], "little")
            yield tensor, np.random.default_rng(seed).standard_normal(shape, dtype=np.float32) * np.float32(SPREAD)
