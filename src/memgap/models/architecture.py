"""The shape of a decoder-only model, and the bytes that follow from it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any

from memgap.errors import UserError
from memgap.models.blocks import Block, Decoder
from memgap.models.cache import cache_type
from memgap.models.decoder import describe
from memgap.models.fields import Fields
from memgap.models.formats import Quantization, flag_quantization, read_quantization
from memgap.models.keys import ALIASES, Keys

OPT, LLAMA, DECODER = "opt", "llama", "decoder"
FAMILIES = (OPT, LLAMA, DECODER)

DTYPE_BYTES: Mapping[str, float] = {
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
}
"""Bytes of one element of weights that are not rounded, and of activations."""

WEIGHT_DTYPES = ("bfloat16", "float16", "float32")

MINIMUM_VOCABULARY = 32

AUTO = "auto"

ENDLESS = 2**20
"""Longest context of a model that names none, since nothing in it depends on the length."""


def dtype_bytes(dtype: str) -> float:
    """Return the bytes of one element of `dtype`; raises UserError for an unknown name."""
    try:
        return DTYPE_BYTES[dtype]
    except KeyError:
        raise UserError(f"unknown dtype {dtype!r} (known: {', '.join(sorted(DTYPE_BYTES))})") from None


@dataclass(frozen=True)
class ModelArchitecture:
    """Shape of one model; `from_dict` builds it with checks and defaults.

    `opt` and `llama` (rotary positions, RMS norms, a gated feed-forward block; `qkv_bias` makes it Qwen2, a
    `sliding_window` Mistral) are told by their own fields. `decoder` is every other one, told by `config`, what its
    config.json says; its further fields are read from there. Lengths are in tokens, sizes in elements.
    `quantization` is the checkpoint's `quantization_config`, None for weights of 16 bits.
    """

    family: str
    layers: int
    hidden_size: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn_size: int
    vocabulary_size: int
    max_length: int
    tied_embeddings: bool
    activation: str
    word_embed_proj_dim: int
    """Width of the token embeddings; OPT projects it to hidden_size where the two differ."""
    position_offset: int
    """Rows of OPT's learned position table beyond max_length; 0 for rotary positions."""
    qkv_bias: bool
    sliding_window: int | None
    norm_epsilon: float
    rope_theta: float | None
    rope_scaling: dict[str, Any] | None = field(hash=False)
    config: dict[str, Any] | None = field(hash=False, default=None)
    quantization: dict[str, Any] | None = field(hash=False, default=None)

    @classmethod
    def from_dict(cls, values: object, where: str = "architecture") -> "ModelArchitecture":
        """Return the architecture that `values` describes, absent fields filled in from the family.

        Raises UserError for unknown, missing, badly typed or inconsistent values; `where` starts the message.
        """
        given = Fields(values, where, tuple(item.name for item in fields(cls)))
        family = given.text("family", choices=FAMILIES)
        if family == DECODER:
            return cls._of_config(given)
        if given.given("config"):
            raise given.error("config", f"absent where the family is {family}")
        opt = family == "opt"
        hidden_size = given.integer("hidden_size", minimum=1)
        heads = given.integer("heads", minimum=1)
        if hidden_size % heads and (opt or not given.given("head_dim")):
            raise UserError(f"{where}: hidden_size {hidden_size} is not a multiple of heads {heads}")
        architecture = cls(
            family=family,
            layers=given.integer("layers", minimum=1),
            hidden_size=hidden_size,
            heads=heads,
            kv_heads=given.integer("kv_heads", minimum=1, default=heads),
            head_dim=given.integer("head_dim", minimum=1, default=hidden_size // heads),
            ffn_size=given.integer("ffn_size", minimum=1),
            vocabulary_size=given.integer("vocabulary_size", minimum=MINIMUM_VOCABULARY),
            max_length=given.integer("max_length", minimum=1),
            tied_embeddings=given.flag("tied_embeddings", default=opt),
            activation=given.text("activation", default="relu" if opt else "silu"),
            word_embed_proj_dim=given.integer("word_embed_proj_dim", minimum=1, default=hidden_size),
            position_offset=given.integer("position_offset", minimum=0, default=2 if opt else 0),
            qkv_bias=given.flag("qkv_bias", default=opt),
            sliding_window=given.integer("sliding_window", minimum=1) if given.given("sliding_window") else None,
            norm_epsilon=given.number("norm_epsilon", above=0.0, default=1e-5),
            rope_theta=None if opt else given.number("rope_theta", above=0.0, default=10000.0),
            rope_scaling=_rope_scaling(given),
            quantization=_quantization(given),
        )
        architecture._check(given)
        return architecture

    @classmethod
    def _of_config(cls, given: Fields) -> "ModelArchitecture":
        config = given.values.get("config")
        if not isinstance(config, Mapping):
            raise given.error("config", "a mapping, as in a config.json")
        for name in given.values:
            if name not in ("family", "config", "quantization") and given.given(name):
                raise given.error(name, "absent where the family is decoder: config says it")
        keys = Keys(config, given.where)
        decoder = describe(config, given.where)
        attentions = [one.attention for one in decoder.blocks if one.attention is not None]
        first = attentions[0] if attentions else None
        heads = keys.optional("heads") or 1
        windows = {one.window for one in attentions}
        architecture = cls(
            family=DECODER,
            layers=decoder.layers,
            hidden_size=decoder.hidden,
            heads=first.heads if first else heads,
            kv_heads=first.kv_heads if first else heads,
            head_dim=first.key_width if first else decoder.hidden // heads,
            ffn_size=max(_ffn(one) for one in decoder.blocks),
            vocabulary_size=decoder.vocabulary,
            max_length=_max_length(keys, needed=bool(attentions) and not keys.kind.startswith("recurrent")),
            tied_embeddings=decoder.tied,
            activation=keys.text("activation", "silu"),
            word_embed_proj_dim=decoder.embedding_width,
            position_offset=0,
            qkv_bias=any(one.bias for block in decoder.blocks for one in block.matrices if one.name == "qkv"),
            sliding_window=windows.pop() if len(windows) == 1 else None,
            norm_epsilon=1e-5,
            rope_theta=None,
            rope_scaling=None,
            config=dict(config),
            quantization=_quantization(given),
        )
        if decoder.vocabulary < MINIMUM_VOCABULARY:
            raise UserError(
                f"{given.where}: vocab_size is {decoder.vocabulary}, but must be {MINIMUM_VOCABULARY} or more"
            )
        architecture.__dict__["decoder"] = architecture._described()
        return architecture

    def _check(self, given: Fields) -> None:
        if self.heads % self.kv_heads:
            raise UserError(f"{given.where}: heads {self.heads} is not a multiple of kv_heads {self.kv_heads}")
        regular = self.heads * self.head_dim == self.hidden_size
        if self.family == "opt":
            fixed: dict[str, tuple[object, str]] = {
                "kv_heads": (self.heads, "equal to heads, as OPT has no grouped attention"),
                "position_offset": (2, "2, as in every OPT model"),
                "qkv_bias": (True, "true, as in every OPT model"),
                "sliding_window": (None, "absent for OPT"),
                "rope_scaling": (None, "absent for OPT"),
                "rope_theta": (None, "absent for OPT"),
                "norm_epsilon": (1e-5, "1e-5, as in every OPT model"),
            }
            for name, (value, rule) in fixed.items():
                if given.given(name) and given.values[name] != value:
                    raise given.error(name, rule)
        else:
            if self.head_dim % 2:
                raise UserError(
                    f"{given.where}: head_dim {self.head_dim} is odd, but rotary positions need an even one"
                )
            if self.word_embed_proj_dim != self.hidden_size:
                raise given.error("word_embed_proj_dim", "equal to hidden_size outside OPT")
            if self.position_offset:
                raise given.error("position_offset", "0 for rotary positions")
            if self.qkv_bias and self.sliding_window is not None:
                raise given.error("sliding_window", "absent where qkv_bias is true")
        if not regular and (self.family == "opt" or self.qkv_bias):
            raise UserError(
                f"{given.where}: head_dim {self.head_dim} times heads {self.heads} "
                f"must be hidden_size {self.hidden_size} for this kind of model"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-ready values; `from_dict` of it gives an equal architecture.

        A `decoder` is its config; the others are their fields. What an older version did not know is there only where
        it says something, so that records of older points stay as they are.
        """
        if self.family == DECODER:
            values: dict[str, Any] = {"family": DECODER, "config": self.config}
        else:
            values = asdict(self)
            del values["config"], values["quantization"]
        return values if self.quantization is None else values | {"quantization": self.quantization}

    @property
    def hf_class(self) -> str:
        """Name of the Hugging Face class that has this shape; empty where the config does not name it."""
        if self.config is not None:
            named = self.config.get("architectures")
            return str(named[0]) if isinstance(named, list) and named else ""
        if self.family == "opt":
            return "OPTForCausalLM"
        if self.qkv_bias:
            return "Qwen2ForCausalLM"
        return "LlamaForCausalLM" if self.sliding_window is None else "MistralForCausalLM"

    @cached_property
    def decoder(self) -> Decoder:
        """The description of the layers that everything is counted from."""
        return self._described()

    def _described(self, override: Quantization | None = None) -> Decoder:
        where = "architecture"
        quantization = override
        if quantization is None and self.quantization is not None:
            quantization = read_quantization(self.quantization, where)
        if self.config is not None:
            return describe(self.config, where, quantization)
        return describe(_own_config(self), where, quantization)

    @property
    def weight_format(self) -> str | None:
        """Short name of the checkpoint's number format, None for 16 (or 32) bits."""
        return None if self.quantization is None else read_quantization(self.quantization, "architecture").summary

    @property
    def checkpoint_kv_dtype(self) -> str | None:
        """Type of the KV cache that the checkpoint names, None where it names none."""
        return None if self.quantization is None else read_quantization(self.quantization, "architecture").kv_dtype

    def kv_dtype(self, dtype: str, flag: object = None) -> str:
        """Return the KV cache's type: that of the server's `flag`, else the checkpoint's, else `dtype`."""
        if isinstance(flag, str) and flag not in ("", AUTO):
            return flag
        return self.checkpoint_kv_dtype or dtype

    def served_as(self, flag: object) -> "ModelArchitecture":
        """Return the architecture with the formats that a server's quantisation flag makes of 16-bit weights.

        The checkpoint's own formats win; a flag that is not known here changes nothing.
        """
        if self.quantization is not None or not isinstance(flag, str):
            return self
        made = flag_quantization(flag)
        if made is None:
            return self
        changed = ModelArchitecture(**{one.name: getattr(self, one.name) for one in fields(self)})
        changed.__dict__["decoder"] = self._described(made)
        return changed

    def parameter_count(self) -> int:
        """Return the number of parameters; tied embeddings count once."""
        return self.decoder.parameter_count()

    def weight_bytes(self, dtype: str) -> int:
        """Return the bytes of all weights, those that are not rounded in `dtype`; UserError for an unknown dtype."""
        return round(self.decoder.weight_bytes(dtype_bytes(dtype)))

    def kv_bytes_per_token(self, dtype: str) -> int:
        """Return the bytes of one token's keys and values in all layers that have some, in a cache of type `dtype`.

        A sliding window does not lower it: it lowers the number of tokens that are kept. UserError for an unknown type.
        """
        return round(self.decoder.kv_bytes_per_token(cache_type(dtype)))


def _rope_scaling(given: Fields) -> dict[str, Any] | None:
    value = given.values.get("rope_scaling")
    if value is None:
        return None
    if not isinstance(value, Mapping) or not isinstance(value.get("rope_type"), str):
        raise given.error("rope_scaling", "a mapping with a rope_type, as in the model's config.json")
    for name, item in value.items():
        if not isinstance(name, str) or not isinstance(item, str | int | float | bool):
            raise given.error("rope_scaling", "a flat mapping of names to numbers and texts")
    return dict(value)


def _quantization(given: Fields) -> dict[str, Any] | None:
    value = given.values.get("quantization")
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise given.error("quantization", "a mapping, as quantization_config in a config.json")
    read_quantization(value, given.where)
    return dict(value)


def _ffn(block: Block) -> int:
    return max(block.ffn_size, block.experts.ffn_size if block.experts else 0, 1)


def _max_length(keys: Keys, needed: bool) -> int:
    found = keys.optional("length")
    if found is None and needed:
        raise UserError(f"{keys.where}: {ALIASES['length'][0]} is missing")
    return found or ENDLESS


def _own_config(shape: ModelArchitecture) -> dict[str, Any]:
    """Return what `describe` reads of a shape that is told by fields."""
    common = {
        "hidden_size": shape.hidden_size,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "vocab_size": shape.vocabulary_size,
        "max_position_embeddings": shape.max_length,
        "tie_word_embeddings": shape.tied_embeddings,
        "sliding_window": shape.sliding_window,
    }
    if shape.family == OPT:
        return {
            "model_type": "opt",
            "ffn_dim": shape.ffn_size,
            "word_embed_proj_dim": shape.word_embed_proj_dim,
            **common,
        }
    kind = "qwen2" if shape.qkv_bias else "mistral"
    own = {"use_sliding_window": False} if shape.qkv_bias else {}
    return {"model_type": kind, "intermediate_size": shape.ffn_size, **own, **common}
