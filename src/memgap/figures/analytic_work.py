"""FLOP and DRAM bytes that a decode step's attention and matrix products ask for, from the model's shape alone.

Attention reads the keys and values of the whole context once, and multiplies and adds each of them once for every
query head; a matrix product reads its weights once, its input and its output. Nothing else is counted, no padding, no
cache.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from memgap.models.architecture import ModelArchitecture, dtype_bytes
from memgap.models.registry import load_registry


@dataclass(frozen=True)
class Work:
    """Floating-point operations (multiply and add are two) and DRAM bytes of a decode step."""

    flop: float
    bytes: float

    @property
    def intensity(self) -> float:
        """FLOP per byte."""
        return self.flop / self.bytes


def step_work(model: str, kernel_class: str, batch: float, context_tokens: float) -> Work | None:
    """Return the work of a class of kernels ("attention", "matmul") in one decode step of a batch.

    None for a model that the registry does not know and where the context's length is unknown.
    """
    entry = load_registry().get(model)
    if entry is None:
        return None
    if kernel_class == "attention":
        if not context_tokens > 0:
            return None
        return _attention(entry.architecture, batch, context_tokens, entry.dtype)
    return _matmul(entry.architecture, batch, entry.dtype)


def _attention(shape: ModelArchitecture, batch: float, context_tokens: float, dtype: str) -> Work:
    kept = min(context_tokens, shape.sliding_window or context_tokens)
    width = shape.heads * shape.head_dim
    flop = 4.0 * shape.layers * width * kept * batch
    queries_and_outputs = 2.0 * shape.layers * width * dtype_bytes(dtype)
    return Work(flop, batch * (kept * shape.kv_bytes_per_token(dtype) + queries_and_outputs))


def _matmul(shape: ModelArchitecture, batch: float, dtype: str) -> Work:
    products = list(_products(shape))
    flop = sum(2.0 * batch * inner * outer for inner, outer in products)
    elements = sum(inner * outer + batch * (inner + outer) for inner, outer in products)
    return Work(flop, elements * dtype_bytes(dtype))


def _products(shape: ModelArchitecture) -> Iterator[tuple[int, int]]:
    """Yield (inner, outer) sizes of all matrix products of a step."""
    width, kv_width = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    up = 2 if shape.family == "llama" else 1
    for _ in range(shape.layers):
        yield shape.hidden_size, width + 2 * kv_width
        yield width, shape.hidden_size
        yield shape.hidden_size, up * shape.ffn_size
        yield shape.ffn_size, shape.hidden_size
    yield shape.word_embed_proj_dim, shape.vocabulary_size
    if shape.word_embed_proj_dim != shape.hidden_size:
        yield from ((shape.word_embed_proj_dim, shape.hidden_size), (shape.hidden_size, shape.word_embed_proj_dim))
