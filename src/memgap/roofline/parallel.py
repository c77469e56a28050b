"""One server over several GPUs: how much of each matrix and cache a GPU holds, and what goes over the links.

Tensor parallelism cuts matrices and heads, pipeline parallelism layers, data parallelism sequences; the experts of a
mixture are spread over tensor x data GPUs, whole ones with expert parallelism and slices of each without. KV heads are
held several times where there are more GPUs than heads, and a latent cache by every GPU.
"""

from dataclasses import dataclass

from memgap.errors import UserError
from memgap.models.blocks import COLUMN, ROW, Block, Decoder, Experts, Linear
from memgap.models.cache import CacheType


@dataclass(frozen=True)
class Parallel:
    """How a server is spread; `expert` says that each GPU holds whole experts."""

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    expert: bool = False

    def __post_init__(self) -> None:
        """Raise UserError for a number below 1."""
        for name in ("tensor", "pipeline", "data"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} parallelism is {getattr(self, name)}, but must be 1 at least.")

    @property
    def gpus(self) -> int:
        """GPUs of one server."""
        return self.tensor * self.pipeline * self.data

    @property
    def expert_gpus(self) -> int:
        """GPUs that share a layer's experts."""
        return self.tensor * self.data

    def check(self, decoder: Decoder) -> None:
        """Raise UserError where heads, experts or layers cannot be spread evenly."""
        for block in decoder.blocks:
            attention = block.attention
            if attention is not None:
                fewer = attention.kv_heads % self.tensor if attention.latent_width is None else 0
                if fewer and self.tensor % attention.kv_heads:
                    raise UserError(
                        f"{attention.kv_heads} KV heads cannot be split evenly over {self.tensor} GPUs; "
                        "choose a number of GPUs that divides them, or a multiple of them."
                    )
                if attention.heads % self.tensor:
                    raise UserError(f"{attention.heads} heads cannot be split evenly over {self.tensor} GPUs.")
            if block.experts is not None and self.expert and block.experts.count % self.expert_gpus:
                raise UserError(f"{block.experts.count} experts cannot be spread evenly over {self.expert_gpus} GPUs.")
        if self.pipeline > decoder.layers:
            raise UserError(f"{decoder.layers} layers cannot be spread over {self.pipeline} GPUs.")

    def kv_share(self, block: Block) -> float:
        """Return the share of a layer's cache that one GPU holds."""
        attention = block.attention
        if attention is None or attention.latent_width is not None:
            return 1.0
        return 1.0 / min(self.tensor, attention.kv_heads)

    def slice_of(self, one: Linear, block: Block) -> tuple[float, float]:
        """Return the outputs and inputs of a matrix that one GPU holds."""
        if one.split == ROW:
            return float(one.n), one.k / self.tensor
        if one.split != COLUMN:
            return float(one.n), float(one.k)
        own = (one.n - one.kv_outputs) / self.tensor
        return own + one.kv_outputs * self.kv_share(block), float(one.k)

    def share_of(self, one: Linear, block: Block) -> float:
        """Return the share of a matrix that one GPU holds."""
        n, k = self.slice_of(one, block)
        return n * k / (one.n * one.k)

    def weights_of_block(self, block: Block, element_bytes: float) -> float:
        """Return the bytes of one layer's weights on one GPU."""
        total = block.others * element_bytes
        total += sum(one.weight_bytes(element_bytes) * self.share_of(one, block) for one in block.matrices)
        if block.experts is not None:
            total += expert_bytes(block.experts, element_bytes) * block.experts.count / self.expert_gpus
        return total

    def weight_bytes(self, decoder: Decoder, element_bytes: float) -> float:
        """Return the bytes of weights of one GPU; with a pipeline that of a mean one."""
        layers = sum(one.count * self.weights_of_block(one, element_bytes) for one in decoder.blocks)
        inside = sum(one.count * one.weight_bytes(element_bytes) for one in decoder.blocks)
        around = sum(decoder.around.values()) * element_bytes
        tables = decoder.weight_bytes(element_bytes) - inside - around
        return (layers + tables / self.tensor) / self.pipeline + around

    def kv_bytes_per_token(self, decoder: Decoder, cache: CacheType) -> float:
        """Return the bytes of a token's cache on each of the GPUs that hold it."""
        total = 0.0
        for one in decoder.blocks:
            if one.attention is not None:
                total += one.count * self._token_bytes(one, cache)
        return total / self.pipeline

    def _token_bytes(self, block: Block, cache: CacheType) -> float:
        """Return what a token adds to one layer's caches on a GPU: its share of the heads, all of an indexer's keys."""
        attention = block.attention
        assert attention is not None
        return (cache.token_bytes(attention) - attention.index_bytes) * self.kv_share(block) + attention.index_bytes

    def sequence_bytes(self, decoder: Decoder, tokens: float, cache: CacheType, state_element: float) -> float:
        """Return what a sequence of `tokens` keeps on each of the GPUs that hold it: windows of its cache, and state.

        `tokens` are rounded up to whole blocks by the caller.
        """
        total = 0.0
        for one in decoder.blocks:
            if one.attention is not None:
                total += one.count * one.attention.kept(tokens) * self._token_bytes(one, cache)
            if one.state is not None:
                total += one.count * one.state.bytes_of(state_element) / self.tensor
        return total / self.pipeline


def expert_bytes(experts: Experts, element_bytes: float) -> float:
    """Return the bytes of one expert."""
    return sum(one.weight_bytes(element_bytes) for one in experts.matrices)


ONE_GPU = Parallel()
