"""What memory B_opt really needs, and how many replicas fit.

fraction = (weights + activations and other + KV at B_opt x (1 + margin)) / device memory. KV at B_opt is the largest
measured usage of the pool, and at least what one request of the greatest length needs, without which the engine does
not start. Activations and other are what it kept besides weights and pool: gpu_memory_utilization x device memory -
weights - pool. On a CPU the pool is set by hand and host memory is shared, so there only the pool's size
is advised.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes by part; None where this machine does not say. `notes` tell which and why."""

    device: str
    kv_pool_bytes: int | None
    kv_at_b_opt_bytes: int | None
    kv_with_margin_bytes: int | None
    kv_with_margin_tokens: int | None
    kv_freed_bytes: int | None
    weights_bytes: int | None
    other_bytes: int | None
    device_memory_bytes: int | None
    fraction: float | None
    replicas: int | None
    notes: list[str]


def memory_need(
    *,
    device: str,
    usage_fraction: float | None,
    kv_pool_bytes: float | None,
    kv_block_bytes: float | None,
    kv_one_request_bytes: float | None,
    weights_bytes: float | None,
    device_memory_bytes: float | None,
    utilization: float | None,
    margin: float,
    limit_fraction: float,
    kv_token_bytes: float | None = None,
) -> MemoryNeed:
    """Return the memory that B_opt needs.

    `usage_fraction` is the largest measured share of the pool in use, `kv_one_request_bytes` the KV cache of one
    request of the server's greatest length, `utilization` its gpu_memory_utilization, `limit_fraction` the share of the
    device that all replicas may take together.
    """
    notes: list[str] = []
    if usage_fraction is None or kv_pool_bytes is None:
        notes.append("The engine reported no KV-cache usage or pool, so no memory is advised.")
        return MemoryNeed(
            device, _whole(kv_pool_bytes), None, None, None, None, _whole(weights_bytes), None, None, None, None, notes
        )
    used = usage_fraction * kv_pool_bytes
    padded = _up_to_blocks(max(used * (1 + margin), kv_one_request_bytes or 0.0), kv_block_bytes)
    fraction = other = replicas = None
    if device != "cuda":
        notes.append("Measured on a CPU: the pool's size is advised, a share of GPU memory and replicas are not.")
    elif weights_bytes is None or device_memory_bytes is None or utilization is None:
        notes.append("Weights, device memory or gpu_memory_utilization is unknown, so no share of memory is advised.")
    else:
        other = max(0.0, utilization * device_memory_bytes - weights_bytes - kv_pool_bytes)
        fraction = math.ceil(1000 * (weights_bytes + other + padded) / device_memory_bytes) / 1000
        replicas = math.floor(limit_fraction / fraction + 1e-9)
    return MemoryNeed(
        device=device,
        kv_pool_bytes=_whole(kv_pool_bytes),
        kv_at_b_opt_bytes=_whole(used),
        kv_with_margin_bytes=_whole(padded),
        kv_with_margin_tokens=math.ceil(padded / kv_token_bytes) if kv_token_bytes else None,
        kv_freed_bytes=_whole(max(0.0, kv_pool_bytes - padded)),
        weights_bytes=_whole(weights_bytes),
        other_bytes=_whole(other),
        device_memory_bytes=_whole(device_memory_bytes) if device == "cuda" else None,
        fraction=fraction,
        replicas=replicas,
        notes=notes,
    )


def _up_to_blocks(size_bytes: float, block_bytes: float | None) -> float:
    return math.ceil(size_bytes / block_bytes) * block_bytes if block_bytes else size_bytes


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)
