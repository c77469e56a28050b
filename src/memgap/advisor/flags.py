"""The advice as server flags that can be pasted."""

from collections.abc import Mapping
from typing import Any

from memgap.advisor.memory import MemoryNeed
from memgap.engine.flags import flag_list

OVERRIDDEN = ("max-num-seqs", "gpu-memory-utilization", "kv-cache-memory-bytes", "num-gpu-blocks-override")


def advised_flags(server_args: Mapping[str, Any], b_opt: int, need: MemoryNeed) -> list[str]:
    """Return the flags of the measured server with the advised cap and memory in place of its own.

    With a known share of GPU memory it is `--gpu-memory-utilization`; on a CPU `--kv-cache-memory-bytes`.
    """
    flags = ["--max-num-seqs", str(b_opt)]
    if need.fraction is not None:
        flags += ["--gpu-memory-utilization", f"{need.fraction:.3f}"]
    elif need.kv_with_margin_bytes is not None:
        flags += ["--kv-cache-memory-bytes", str(need.kv_with_margin_bytes)]
    kept = {name: value for name, value in server_args.items() if name not in OVERRIDDEN}
    return flags + flag_list(kept)
