"""The shape of a decoder-only model, and the bytes that follow from it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from memgap.errors import UserError
from memgap.models.fields import Fields

FAMILIES = ("opt", "llama")

DTYPE_BYTES: Mapping[str, int] = {
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "fp8": 1,
    "fp8_e4m3": 1,
    "fp8_e5m2": 1,
}
"""Bytes of one element; the fp8 names are those of KV caches."""

WEIGHT_DTYPES = ("bfloat16", "float16", "float32")

MINIMUM_VOCABULARY = 32


def dtype_bytes(dtype: str) -> int:
    """Return the bytes of one element of `dtype`; raises UserError for an unknown name."""
    try:
        return DTYPE_BYTES[dtype]
    except KeyError:
        raise UserError(f"unknown dtype {dtype!r} (known: {', '.join(sorted(DTYPE_BYTES))})") from None


@dataclass(frozen=True)
class ModelArchitecture:
    """Shape of one model; `from_dict` builds it with checks and defaults.

    `llama` stands for every decoder with rotary positions, RMS norms and a gated feed-forward block:
    `qkv_bias` makes it Qwen2, a `sliding_window` makes it Mistral.
    Lengths are in tokens, sizes in elements.
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

    @classmethod
    def from_dict(cls, values: object, where: str = "architecture") -> "ModelArchitecture":
        """Return the architecture that `values` describes, absent fields filled in from the family.

        Raises UserError for unknown, missing, badly typed or inconsistent values; `where` starts the message.
        """
        given = Fields(values, where, tuple(item.name for item in fields(cls)))
        family = given.text("family", choices=FAMILIES)
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
        )
        architecture._check(given)
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
        """Return every field as JSON-ready values; `from_dict` of it gives an equal architecture."""
        return asdict(self)

    @property
    def hf_class(self) -> str:
        """Name of the Hugging Face class that has this shape."""
        if self.family == "opt":
            return "OPTForCausalLM"
        if self.qkv_bias:
            return "Qwen2ForCausalLM"
        return "LlamaForCausalLM" if self.sliding_window is None else "MistralForCausalLM"

    def parameter_count(self) -> int:
        """Return the number of parameters; tied embeddings count once."""
        return self._opt_parameters() if self.family == "opt" else self._llama_parameters()

    def _opt_parameters(self) -> int:
        hidden, ffn, embed = self.hidden_size, self.ffn_size, self.word_embed_proj_dim
        attention = 4 * (hidden * hidden + hidden)
        feed_forward = 2 * hidden * ffn + hidden + ffn
        layer_norms = 2 * 2 * hidden
        embeddings = self.vocabulary_size * embed * (1 if self.tied_embeddings else 2)
        positions = (self.max_length + self.position_offset) * hidden
        projections = 0 if embed == hidden else 2 * embed * hidden
        return (
            self.layers * (attention + feed_forward + layer_norms) + embeddings + positions + projections + 2 * hidden
        )

    def _llama_parameters(self) -> int:
        hidden = self.hidden_size
        query_width, kv_width = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = 2 * hidden * query_width + 2 * hidden * kv_width
        if self.qkv_bias:
            attention += query_width + 2 * kv_width
        layer = attention + 3 * hidden * self.ffn_size + 2 * hidden
        embeddings = self.vocabulary_size * hidden * (1 if self.tied_embeddings else 2)
        return self.layers * layer + embeddings + hidden

    def weight_bytes(self, dtype: str) -> int:
        """Return the bytes of all parameters in `dtype`; raises UserError for an unknown dtype."""
        return self.parameter_count() * dtype_bytes(dtype)

    def kv_bytes_per_token(self, dtype: str) -> int:
        """Return the bytes of the keys and values of one token in every layer, held in `dtype`.

        A sliding window does not lower it: it lowers the number of tokens that are kept.
        """
        return 2 * self.layers * self.kv_heads * self.head_dim * dtype_bytes(dtype)


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
