"""The advice as server flags that can be pasted."""

import math
from collections.abc import Mapping
from typing import Any

from memgap.advisor.memory import MemoryNeed
from memgap.engine.base import FlagNames
from memgap.engine.flags import flag_list, without_false
from memgap.engine.ranks import Sizes
from memgap.engine.vllm import VllmAdapter

OVERRIDDEN = ("max_seqs", "memory_fraction", "kv_bytes", "kv_blocks", "kv_tokens")
"""What the advice sets, by meaning."""


def advised_arguments(
    server_args: Mapping[str, Any], b_opt: int, need: MemoryNeed, names: FlagNames = VllmAdapter.flags
) -> dict[str, Any]:
    """Return the arguments of the measured server with the advised cap and memory in place of its own.

    `names` are its engine's. With a known share of GPU memory it is that; on a CPU the bytes of the KV cache of each
    rank. An engine whose share is of what is free gets the tokens of its KV cache, as far as they are known.
    """
    advised: dict[str, Any] = {str(names.max_seqs): b_opt}
    if names.fraction_is_of_free:
        if need.kv_with_margin_tokens is not None:
            advised[str(names.kv_tokens)] = need.kv_with_margin_tokens
    elif need.fraction is not None:
        advised[str(names.memory_fraction)] = round(need.fraction, 3)
    elif need.kv_with_margin_bytes is not None:
        advised[str(names.kv_bytes)] = math.ceil(need.kv_with_margin_bytes / Sizes.of(names, server_args).ranks)
    return {**advised, **{name: value for name, value in server_args.items() if name not in _overridden(names)}}


def advised_flags(
    server_args: Mapping[str, Any], b_opt: int, need: MemoryNeed, names: FlagNames = VllmAdapter.flags
) -> list[str]:
    """Return `advised_arguments` as flags, cap and memory first."""
    arguments = advised_arguments(server_args, b_opt, need, names)
    first = [name for name in arguments if name in _overridden(names)]
    flags = []
    for name in first:
        value = arguments.pop(name)
        flags += [f"--{name}", f"{value:.3f}" if isinstance(value, float) else str(value)]
    return flags + flag_list(without_false(arguments) if names.fraction_is_of_free else arguments)


def _overridden(names: FlagNames) -> set[str | None]:
    return {getattr(names, meaning) for meaning in OVERRIDDEN}
