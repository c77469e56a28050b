"""A model as a server holds it: the checkpoint's number formats, and what the server's flags make of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from memgap.engine.base import FlagNames
from memgap.models.architecture import ModelArchitecture
from memgap.models.cache import CACHE_TYPES


@dataclass(frozen=True)
class Held:
    """Weights and KV cache of a server; `dtype` is that of what is not rounded, `kv_dtype` that of the cache."""

    architecture: ModelArchitecture
    dtype: str
    kv_dtype: str

    @property
    def weights_bytes(self) -> int:
        """Bytes of the weights of one server, over all its GPUs, each weight once."""
        return self.architecture.weight_bytes(self.dtype)

    @property
    def kv_bytes_per_token(self) -> int | None:
        """Bytes of a token's keys and values in all layers; None for a type of cache that is not known here."""
        if self.kv_dtype not in CACHE_TYPES:
            return None
        return self.architecture.kv_bytes_per_token(self.kv_dtype)

    def pool_bytes(self, tokens: int | None, tensor: int = 1) -> int | None:
        """Return the bytes of a cache of `tokens` over all GPUs; None where either is not known.

        With `tensor` GPUs a tensor-parallel group, KV heads are kept several times where they are fewer than GPUs, and
        a latent cache by every GPU.
        """
        token = self.kv_bytes_per_token
        if tokens is None or token is None:
            return None
        latent = any(one.attention and one.attention.latent_width for one in self.architecture.decoder.blocks)
        return tokens * token * (tensor if latent else max(tensor // self.architecture.kv_heads, 1))


def held(model: Mapping[str, Any], names: FlagNames, flags: Mapping[str, Any], told_kv_dtype: object = None) -> Held:
    """Return how a server with `flags` holds the model of a record.

    `names` are its adapter's, `told_kv_dtype` what the running server says of its cache, which goes before a flag.
    Raises UserError for a record that is damaged.
    """
    hyphened = {name.replace("_", "-"): value for name, value in flags.items()}
    given = {names.aliases.get(name, name): value for name, value in hyphened.items()}

    def flag(name: str | None) -> Any:
        return given.get(name) if name is not None else None

    architecture = ModelArchitecture.from_dict(model["architecture"]).served_as(flag(names.quantization))
    asked = told_kv_dtype if told_kv_dtype not in (None, "", "None", "auto") else flag(names.kv_dtype)
    return Held(architecture, model["dtype"], architecture.kv_dtype(model["dtype"], asked))


def held_of(record: Mapping[str, Any]) -> Held:
    """Return how the server of a point's record holds its model."""
    from memgap.engine.adapters import adapter_for  # the adapters themselves use this module

    return held(record["model"], adapter_for(record["engine"]["adapter"]).flags, record["server"]["args"])
