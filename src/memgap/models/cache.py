"""Types of KV caches: the bytes that a token's keys and values take in a layer, scales included."""

from collections.abc import Mapping
from dataclasses import dataclass

from memgap.errors import UserError
from memgap.models.blocks import Attention


@dataclass(frozen=True)
class CacheType:
    """How a cache holds what it keeps.

    `scale_bytes` stand beside each head's keys and beside its values. `packed` are the bytes of an element of the
    compressed part and of the rotary part of a latent cache that is laid out in an own way: always (`packs_all`), or
    where an indexer picks the tokens.
    """

    element_bytes: float
    scale_bytes: float = 0.0
    packed: tuple[float, float] | None = None
    packs_all: bool = False

    def entry_bytes(self, attention: Attention) -> float:
        """Return the bytes of a token's entry in one layer's cache, without an indexer's keys."""
        if attention.latent_width is None:
            elements = attention.kv_heads * (attention.key_width + attention.value_width)
            return elements * self.element_bytes + 2 * attention.kv_heads * self.scale_bytes
        if self.packed is None or not (self.packs_all or attention.sparse_tokens):
            return attention.latent_width * self.element_bytes
        compressed, rotary = self.packed
        turned = attention.latent_width - attention.latent_value_width
        return attention.latent_value_width * compressed + turned * rotary

    def token_bytes(self, attention: Attention) -> float:
        """Return what a token adds to one layer's caches: nothing where the layer reads those of an earlier one."""
        return (self.entry_bytes(attention) if attention.caches else 0.0) + attention.index_bytes


_FP8_PACKED = 1 + 4 / 128, 2.0  # a 32-bit scale for 128 elements; the rotary part in 16 bits
_FP4 = 0.5 + 1 / 16  # a scale of 8 bits for 16 elements
_FP8 = CacheType(1, packed=_FP8_PACKED)

CACHE_TYPES: Mapping[str, CacheType] = {
    "float32": CacheType(4),
    **dict.fromkeys(("float16", "bfloat16", "half", "bf16"), CacheType(2)),
    **dict.fromkeys(("fp8", "fp8_e4m3", "fp8_e5m2", "fp8_inc"), _FP8),
    "int8": CacheType(1),
    **dict.fromkeys(("nvfp4", "nvfp4_4over6", "fp4_e2m1"), CacheType(_FP4)),
    **dict.fromkeys(("fp8_per_token_head", "int8_per_token_head"), CacheType(1, 4)),
    "int4_per_token_head": CacheType(0.5, 4),
    "fp8_ds_mla": CacheType(1, packed=_FP8_PACKED, packs_all=True),
    "nvfp4_ds_mla": CacheType(_FP4, packed=(_FP4, 1.0), packs_all=True),
}
"""By the names that servers' flags have for them; FP8 has one scale for all, which takes no room."""


def cache_type(name: str) -> CacheType:
    """Return a type of cache by its name; raises UserError for an unknown one."""
    try:
        return CACHE_TYPES[name]
    except KeyError:
        raise UserError(f"unknown type of KV cache {name!r} (known: {', '.join(sorted(CACHE_TYPES))})") from None
