"""What a decoder is made of: matrices, attention, recurrent state and experts, layer by layer.

Everything that is counted (parameters, bytes, operations) comes from this description. It holds no names of files or
keys, so the same counting serves every family.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from memgap.models.formats import EXPERT, LINEAR, NumberFormat

if TYPE_CHECKING:
    from memgap.models.cache import CacheType

COLUMN, ROW, WHOLE = "column", "row", "whole"
"""How tensor parallelism cuts a matrix: by its outputs, by its inputs, or not at all."""


@dataclass(frozen=True)
class Linear:
    """A matrix of n outputs and k inputs, with `bias_elements` beside it.

    `kv_outputs` of the outputs are keys and values: with more GPUs than KV heads they are held several times. `names`
    are what checkpoints may call it, below the layer; `format` is None for 16 bits.
    """

    name: str
    n: int
    k: int
    bias: bool = False
    names: tuple[str, ...] = ()
    role: str = LINEAR
    split: str = COLUMN
    kv_outputs: int = 0
    format: NumberFormat | None = None

    @property
    def parameters(self) -> int:
        """Elements of weight and bias."""
        return self.n * self.k + (self.n if self.bias else 0)

    def weight_bytes(self, element_bytes: float) -> float:
        """Return the bytes of weight and bias where what is not rounded takes `element_bytes`."""
        bias = self.n * element_bytes if self.bias else 0.0
        return bias + (self.n * self.k * element_bytes if self.format is None else self.format.bytes_of(self.n, self.k))


@dataclass(frozen=True)
class Experts:
    """A layer's routed experts, all alike: `count` of them, `per_token` for each token."""

    count: int
    per_token: int
    matrices: tuple[Linear, ...]
    ffn_size: int

    def touched(self, tokens: float) -> float:
        """Return how many experts `tokens` use in the mean, each of them choosing evenly."""
        return self.count * (1.0 - (1.0 - self.per_token / self.count) ** tokens) if tokens > 0 else 0.0


@dataclass(frozen=True)
class Attention:
    """One layer's attention: widths are elements a head.

    `window` is how far back a token attends (None: all), `sparse_tokens` how many tokens an indexer picks.
    `latent_width` is what multi-head latent attention caches a token instead of keys and values.
    `index_elements` are the indexer's own cached elements a token, in 8 bits with a scale. `caches` is false where the
    layer reads the keys and values of an earlier one, and `value_is_key` where only one of the two is kept.
    """

    heads: int
    kv_heads: int
    key_width: int
    value_width: int
    window: int | None = None
    latent_width: int | None = None
    latent_value_width: int = 0
    rotary_width: int = 0
    sparse_tokens: int | None = None
    index_heads: int = 0
    index_width: int = 0
    caches: bool = True

    @property
    def cache_elements(self) -> int:
        """Elements of the cache that a token takes in this layer."""
        if not self.caches:
            return 0
        return self.latent_width or self.kv_heads * (self.key_width + self.value_width)

    @property
    def index_bytes(self) -> float:
        """Bytes of the indexer's keys a token: 8 bits each and a 32-bit scale for 128 of them."""
        return self.index_width + 4 * -(-self.index_width // 128) if self.index_width else 0.0

    def kept(self, context_tokens: float) -> float:
        """Return how many of `context_tokens` lie in the window."""
        return context_tokens if self.window is None else min(context_tokens, float(self.window))

    def attended(self, context_tokens: float) -> float:
        """Return how many of `context_tokens` a token attends to."""
        kept = self.kept(context_tokens)
        return kept if self.sparse_tokens is None else min(kept, float(self.sparse_tokens))


@dataclass(frozen=True)
class State:
    """What a layer without attention carries from token to token: a fixed number of elements a sequence.

    `elements` are those of the recurrence (often in 32 bits: `element_bytes`), `conv_elements` the last inputs of its
    convolution, in the model's type. `flop` are the recurrence's operations a token.
    """

    kind: str
    elements: int
    conv_elements: int
    flop: float
    element_bytes: float | None = None

    def bytes_of(self, model_element_bytes: float) -> float:
        """Return the bytes of one sequence's state in this layer."""
        own = self.element_bytes or model_element_bytes
        return self.elements * own + self.conv_elements * model_element_bytes


@dataclass(frozen=True)
class Block:
    """`count` layers that are alike. `others` are parameters beside the matrices (norms, convolutions, sinks), `norms`
    the passes over the hidden state, `ffn_size` the width of the dense feed-forward block (0 without one).
    """

    name: str
    count: int
    matrices: tuple[Linear, ...]
    others: int
    norms: int = 2
    attention: Attention | None = None
    state: State | None = None
    experts: Experts | None = None
    ffn_size: int = 0
    gated: bool = True

    @property
    def parameters(self) -> int:
        """Parameters of one layer."""
        routed = (
            0 if self.experts is None else self.experts.count * sum(one.parameters for one in self.experts.matrices)
        )
        return sum(one.parameters for one in self.matrices) + routed + self.others

    @property
    def active_parameters(self) -> int:
        """Parameters of one layer that a token meets."""
        used = (
            0 if self.experts is None else self.experts.per_token * sum(one.parameters for one in self.experts.matrices)
        )
        return sum(one.parameters for one in self.matrices) + used + self.others

    def weight_bytes(self, element_bytes: float) -> float:
        """Return the bytes of one layer's weights where what is not rounded takes `element_bytes`."""
        routed = 0.0
        if self.experts is not None:
            routed = self.experts.count * sum(one.weight_bytes(element_bytes) for one in self.experts.matrices)
        return sum(one.weight_bytes(element_bytes) for one in self.matrices) + routed + self.others * element_bytes


@dataclass(frozen=True)
class Decoder:
    """A whole model: blocks in the order of their first layer, and what stands around them.

    `embedding` is the width of a token's row; `embedding_rows` and `position_rows` are the tables' lengths;
    `around` are further parameters outside the layers by name (final norm, projections, a vision tower).
    `head` is None for a model without logits (rewards, embeddings); `tied` says that it shares the embedding.
    `uncounted` names keys of further parts, such as an audio encoder, whose parameters are not counted here.
    """

    hidden: int
    vocabulary: int
    embedding_width: int
    tied: bool
    head: Linear | None
    blocks: tuple[Block, ...]
    projections: tuple[Linear, ...] = ()
    around: Mapping[str, int] = field(default_factory=dict)
    norm_flop: float = 6.0
    activation_flop: float = 5.0
    position_width: int = 0
    uncounted: tuple[str, ...] = ()

    @property
    def layers(self) -> int:
        """How many layers there are."""
        return sum(one.count for one in self.blocks)

    @property
    def embedding_parameters(self) -> int:
        """Parameters of the table of tokens."""
        return self.vocabulary * self.embedding_width

    def parameter_count(self) -> int:
        """Return the number of parameters; a tied head counts once."""
        return self._outside() + sum(one.count * one.parameters for one in self.blocks)

    def active_parameters(self) -> int:
        """Return the parameters that a token meets: of the routed experts only those that it is sent to."""
        return self._outside() + sum(one.count * one.active_parameters for one in self.blocks)

    def _outside(self) -> int:
        head = 0 if self.head is None else self.head.parameters - (self.head.n * self.head.k if self.tied else 0)
        projected = sum(one.parameters for one in self.projections)
        return self.embedding_parameters + head + projected + sum(self.around.values())

    def weight_bytes(self, element_bytes: float) -> float:
        """Return the bytes of all weights where what is not rounded takes `element_bytes`."""
        head = 0.0
        if self.head is not None:
            head = self.head.weight_bytes(element_bytes)
            if self.tied:
                head -= self.head.n * self.head.k * element_bytes
        outside = self.embedding_parameters + sum(self.around.values())
        outside += sum(one.parameters for one in self.projections)
        return outside * element_bytes + head + sum(one.count * one.weight_bytes(element_bytes) for one in self.blocks)

    def kv_bytes_per_token(self, cache: "CacheType") -> float:
        """Return the bytes that one token takes in the caches of all layers with attention."""
        return sum(one.count * cache.token_bytes(one.attention) for one in self.blocks if one.attention is not None)

    def kv_bytes_of_sequence(self, tokens: float, cache: "CacheType", block_tokens: int = 1) -> float:
        """Return the bytes that a sequence of `tokens` keeps, in whole blocks: windows forget what lies before them."""
        total = 0.0
        for one in self.blocks:
            if one.attention is not None:
                kept = -(-one.attention.kept(tokens) // block_tokens) * block_tokens
                total += one.count * kept * cache.token_bytes(one.attention)
        return total

    def state_bytes(self, element_bytes: float) -> float:
        """Return the bytes of fixed state that a sequence keeps, whatever its length."""
        return sum(one.count * one.state.bytes_of(element_bytes) for one in self.blocks if one.state is not None)

    def attention_width(self) -> float:
        """Return the sum over layers of heads x (key width + value width) / 2: for the operations of attention."""
        return sum(
            one.count * one.attention.heads * (one.attention.key_width + one.attention.value_width) / 2
            for one in self.blocks
            if one.attention is not None
        )


__all__ = ["COLUMN", "EXPERT", "ROW", "WHOLE", "Attention", "Block", "Decoder", "Experts", "Linear", "State"]
