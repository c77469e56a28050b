"""Variables that a server inherits from whoever started memgap, and that can change what it does.

They are no part of a point's key: a key must be the same on the machine that draws. They are kept beside the point, and
one that was measured with others than the session has now is measured again.
"""

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Final

from memgap.canonical import canonical_json
from memgap.redact import redact, secret_name

FAMILIES: Final = re.compile(
    r"(OMP|GOMP|KMP|MKL|OPENBLAS|BLIS|NUMEXPR|VLLM|SGLANG|SGL|NCCL|RCCL|CUDA|CUBLAS|CUBLASLT|CUDNN|TORCH|TORCHINDUCTOR"
    r"|TORCHDYNAMO|PYTORCH|TRITON|FLASHINFER|FLASH_ATTENTION|XFORMERS|HIP|HSA|ROCR|ROCM|GPU|GLOO|UCX|RAY|TRANSFORMERS"
    r"|TOKENIZERS|RAYON|TBB|GOTO|VECLIB|MALLOC|MIMALLOC|ATEN|ONEDNN|DNNL)_\w+|LD_PRELOAD|NVIDIA_TF32_OVERRIDE|MALLOC_CONF|PYTHONMALLOC",
)
"""Threads, kernels, communication, memory: of the engines and of what they are built on."""
ELSEWHERE: Final = re.compile(
    r".*(_(HOME|PATHS?|DIR|DIRS|DIRECTORY|ROOT|CACHE|FOLDER|FILE|PREFIX|VERSION|HOST|HOST_IP|IP|PORT|URL|ADDRESS|LEVEL|DEBUG|STATS"
    r"|VERBOSE|DISPLAY_ENV)"
    r"|LOGGING\w*|_LOG\w*|_CACHE_\w+)"
)
"""Names of places, of versions and of what is printed: they differ from machine to machine and change no result."""
CHOSEN: Final = re.compile(r".*VISIBLE_DEVICES|GPU_DEVICE_ORDINAL")
"""Which of equal GPUs a scheduler gave (Slurm sets all of them): kept, but no reason to measure again."""
ENGINES: Mapping[str, tuple[str, ...]] = {"VLLM_": ("vllm", "mock"), "SGLANG_": ("sglang",), "SGL_": ("sglang",)}
"""Adapters of the engines that look at these variables; at others every engine may."""
LONGEST = 200


def inherited(environment: Mapping[str, str], set_here: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of an environment that can change results, sorted, but for those that the point sets itself.

    Secrets are left out; paths are cut down to their last part.
    """
    return {
        name: _shown(value)
        for name, value in sorted(environment.items())
        if FAMILIES.fullmatch(name) and not ELSEWHERE.fullmatch(name) and not secret_name(name) and name not in set_here
    }


def differing(before: Mapping[str, str], now: Mapping[str, str], adapter: str) -> list[str]:
    """Return the names of those variables that differ and matter to an engine with that adapter."""
    return [
        name
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name) and not CHOSEN.fullmatch(name) and _looked_at(name, adapter)
    ]


def inherited_text(environment: Mapping[str, str]) -> str:
    """Return the inherited variables that may matter to some engine as text; empty without any."""
    found = {name: value for name, value in inherited(environment, {}).items() if not CHOSEN.fullmatch(name)}
    return canonical_json(found) if found else ""


def _looked_at(name: str, adapter: str) -> bool:
    return all(adapter in engines for prefix, engines in ENGINES.items() if name.startswith(prefix))


def _shown(value: str) -> str:
    names = [PurePosixPath(one).name if one.startswith("/") else one for one in value.split(":")]
    return redact(":".join(names), environment=False)[:LONGEST]
