"""The advice as server flags that can be pasted."""

import math
from collections.abc import Mapping
from typing import Any

from memgap.advisor.memory import MemoryNeed
from memgap.engine.flags import flag_list
from memgap.engine.ranks import Sizes
from memgap.engine.vllm import VllmAdapter

OVERRIDDEN = ("max-num-seqs", "gpu-memory-utilization", "kv-cache-memory-bytes", "num-gpu-blocks-override")


def advised_arguments(server_args: Mapping[str, Any], b_opt: int, need: MemoryNeed) -> dict[str, Any]:
    """Return the arguments of the measured server with the advised cap and memory in place of its own.

    With a known share of GPU memory it is gpu-memory-utilization; on a CPU kv-cache-memory-bytes, that of each rank.
    """
    advised: dict[str, Any] = {"max-num-seqs": b_opt}
    if need.fraction is not None:
        advised["gpu-memory-utilization"] = round(need.fraction, 3)
    elif need.kv_with_margin_bytes is not None:
        ranks = Sizes.of(VllmAdapter.flags, server_args).ranks
        advised["kv-cache-memory-bytes"] = math.ceil(need.kv_with_margin_bytes / ranks)
    return {**advised, **{name: value for name, value in server_args.items() if name not in OVERRIDDEN}}


def advised_flags(server_args: Mapping[str, Any], b_opt: int, need: MemoryNeed) -> list[str]:
    """Return `advised_arguments` as flags, cap and memory first."""
    arguments = advised_arguments(server_args, b_opt, need)
    first = [name for name in arguments if name in OVERRIDDEN]
    flags = []
    for name in first:
        value = arguments.pop(name)
        flags += [f"--{name}", f"{value:.3f}" if isinstance(value, float) else str(value)]
    return flags + flag_list(arguments)
