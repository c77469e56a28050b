"""The work of one step of a model, counted from its shape: operations, and bytes to and from the GPU's memory.

An operation is one addition or multiplication, so a multiply-add counts two. Every kernel reads its inputs and writes
its outputs once; what caches save is not known without running it. Counted as the engine runs them: the projections of
Q, K and V are one product, so are up and gate; a residual addition is part of the norm after it; only tokens that need
logits pass the LM head. Not counted: the softmax's operations (matrix units do not do them), tables of blocks,
launches.

Batches and lengths may be fractions, such as means over a run.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from memgap.models.architecture import ModelArchitecture, dtype_bytes

TENSOR, VECTOR = "tensor", "vector"
FLOAT32_BYTES = 4

_NORM_FLOP = {"opt": 9.0, "llama": 6.0}
"""An element's operations in a norm with its residual addition: LayerNorm (mean, variance, scale, shift), RMSNorm."""
_ACTIVATION_FLOP = {"opt": 1.0, "llama": 5.0}
"""An output's operations: a comparison for ReLU; SiLU and the product with the gate."""
_ROTARY_FLOP = 3.0


@dataclass(frozen=True)
class Work:
    """Operations and bytes moved to or from the GPU's memory."""

    flop: float
    bytes: float

    def __add__(self, other: "Work") -> "Work":
        return Work(self.flop + other.flop, self.bytes + other.bytes)

    def __mul__(self, times: float) -> "Work":
        return Work(self.flop * times, self.bytes * times)

    @property
    def intensity(self) -> float:
        """Arithmetic intensity in FLOP/B; 0 where nothing moves."""
        return self.flop / self.bytes if self.bytes else 0.0


NOTHING = Work(0.0, 0.0)


@dataclass(frozen=True)
class Gemm:
    """A matrix product with a weight of n x k elements, and a bias of n where `bias` says so."""

    name: str
    n: int
    k: int
    bias: bool

    @property
    def parameters(self) -> int:
        """Elements of weight and bias."""
        return self.n * self.k + (self.n if self.bias else 0)

    def work(self, rows: float, dtype: str) -> Work:
        """Return the work of `rows` tokens in `dtype`; raises UserError for an unknown dtype."""
        bias = Work(rows * self.n, self.n * dtype_bytes(dtype)) if self.bias else NOTHING
        return matmul(rows, self.n, self.k, dtype) + bias


@dataclass(frozen=True)
class Kernel:
    """A kernel that a step launches `count` times; `work` is that of one launch.

    `required_bytes` is the part of its bytes that no cache can save: weights and KV cache. `unit` (tensor or vector)
    says which peak bounds its operations. `kernel_class` is named as in the tables of kernels.
    """

    name: str
    kernel_class: str
    unit: str
    count: int
    work: Work
    required_bytes: float = 0.0


def matmul(m: float, n: int, k: int, dtype: str) -> Work:
    """Return the work of a product of m x k and k x n in `dtype`: 2mnk operations, all three matrices moved once.

    Raises UserError for an unknown dtype.
    """
    return Work(2.0 * m * n * k, (m * k + k * n + m * n) * dtype_bytes(dtype))


def layer_gemms(architecture: ModelArchitecture) -> list[Gemm]:
    """Return the matrix products of one layer: qkv, out, up (up_gate with a gated feed-forward block) and down."""
    hidden, ffn = architecture.hidden_size, architecture.ffn_size
    query, kv = architecture.heads * architecture.head_dim, architecture.kv_heads * architecture.head_dim
    opt = architecture.family == "opt"
    return [
        Gemm("qkv", query + 2 * kv, hidden, architecture.qkv_bias),
        Gemm("out", hidden, query, opt),
        Gemm("up", ffn, hidden, True) if opt else Gemm("up_gate", 2 * ffn, hidden, False),
        Gemm("down", hidden, ffn, opt),
    ]


def lm_head(architecture: ModelArchitecture) -> Gemm:
    """Return the product that makes logits; its weight is read whole, also where it is tied to the embeddings."""
    return Gemm("lm_head", architecture.vocabulary_size, architecture.word_embed_proj_dim, False)


def embedding_projections(architecture: ModelArchitecture) -> list[Gemm]:
    """Return the products between embedding and hidden width: none where the two are equal."""
    hidden, embed = architecture.hidden_size, architecture.word_embed_proj_dim
    if embed == hidden:
        return []
    return [Gemm("project_in", hidden, embed, False), Gemm("project_out", embed, hidden, False)]


def kept_tokens(architecture: ModelArchitecture, context_tokens: float) -> float:
    """Return how many of `context_tokens` a token attends to: a sliding window forgets the older ones."""
    window = architecture.sliding_window
    return context_tokens if window is None else min(context_tokens, float(window))


def attention_decode(
    architecture: ModelArchitecture, batch: float, context_tokens: float, kv_dtype: str, dtype: str = "float16"
) -> Work:
    """Return the work of one layer's attention kernel in a decode step, for `batch` sequences of `context_tokens`.

    Keys and values are read once in `kv_dtype` and shared by the heads of a group; queries are read and outputs written
    in `dtype`. With one KV head a query head and 16 bits that is about 1 FLOP/B. Raises UserError for an unknown dtype.
    """
    kept = kept_tokens(architecture, context_tokens)
    width = architecture.heads * architecture.head_dim
    return Work(
        4.0 * batch * kept * width,
        _kv_bytes(architecture, batch * kept, kv_dtype) + 2 * batch * width * dtype_bytes(dtype),
    )


def attention_prefill(architecture: ModelArchitecture, sequences: float, prompt_tokens: float, dtype: str) -> Work:
    """Return the work of one layer's attention kernel over whole prompts, each token attending to those before it.

    Queries, keys and values are read and outputs written once, as tiled kernels do. Raises UserError for an unknown
    dtype.
    """
    heads, kv_heads, width = architecture.heads, architecture.kv_heads, architecture.head_dim
    kept = kept_tokens(architecture, prompt_tokens)
    pairs = kept * (kept + 1) / 2 + (prompt_tokens - kept) * kept
    moved = sequences * prompt_tokens * (2 * heads + 2 * kv_heads) * width
    return Work(4.0 * sequences * pairs * heads * width, moved * dtype_bytes(dtype))


def kv_write(architecture: ModelArchitecture, tokens: float, kv_dtype: str, dtype: str) -> Work:
    """Return the work of one layer's kernel that puts the keys and values of new tokens into the cache."""
    written = _kv_bytes(architecture, tokens, kv_dtype)
    return Work(0.0, written + _kv_bytes(architecture, tokens, dtype))


def _kv_bytes(architecture: ModelArchitecture, tokens: float, dtype: str) -> float:
    """Return the bytes of one layer's keys and values of `tokens`."""
    return tokens * architecture.kv_bytes_per_token(dtype) / architecture.layers


def step_kernels(
    architecture: ModelArchitecture,
    *,
    decode_sequences: float,
    context_tokens: float,
    prefill_sequences: float = 0.0,
    prompt_tokens: float = 0.0,
    logit_rows: float | None = None,
    dtype: str = "float16",
    kv_dtype: str | None = None,
) -> list[Kernel]:
    """Return the kernels of a step that decodes some sequences and prefills others, as chunked prefill mixes them.

    `context_tokens` is the mean length that a decoded token attends to, `prompt_tokens` that of the prompts,
    `logit_rows` how many tokens pass the LM head (all sequences, unless given). `dtype` is that of weights and
    activations, `kv_dtype` that of the KV cache (the same, unless given). Raises UserError for an unknown dtype.
    """
    cache = kv_dtype or dtype
    size = dtype_bytes(dtype)
    prefill_tokens = prefill_sequences * prompt_tokens
    rows = decode_sequences + prefill_tokens
    logits = decode_sequences + prefill_sequences if logit_rows is None else logit_rows
    layers, hidden, family = architecture.layers, architecture.hidden_size, architecture.family
    kernels = [_embedding(architecture, rows, size)]
    kernels += [_gemm(gemm, 1, rows, dtype) for gemm in embedding_projections(architecture)[:1]]
    kernels += [_gemm(gemm, layers, rows, dtype) for gemm in layer_gemms(architecture)]
    if decode_sequences:
        attention = attention_decode(architecture, decode_sequences, context_tokens, cache, dtype)
        read = _kv_bytes(architecture, decode_sequences * kept_tokens(architecture, context_tokens), cache)
        kernels.append(Kernel("attention_decode", "attention", TENSOR, layers, attention, read))
    if prefill_tokens:
        attention = attention_prefill(architecture, prefill_sequences, prompt_tokens, dtype)
        kernels.append(Kernel("attention_prefill", "attention", TENSOR, layers, attention))
    written = _kv_bytes(architecture, rows, cache)
    kernels.append(Kernel("kv_write", "kv_write", VECTOR, layers, kv_write(architecture, rows, cache, dtype), written))
    if family != "opt":
        elements = rows * (architecture.heads + architecture.kv_heads) * architecture.head_dim
        rotary = Work(_ROTARY_FLOP * elements, 2 * elements * size)
        kernels.append(Kernel("rotary", "elementwise", VECTOR, layers, rotary))
    norm = Work(_NORM_FLOP[family] * rows * hidden, 4 * rows * hidden * size)
    kernels.append(Kernel("norm", "norm", VECTOR, 2 * layers + 1, norm))
    ffn = architecture.ffn_size
    inputs = 1 if family == "opt" else 2
    activation = Work(_ACTIVATION_FLOP[family] * rows * ffn, (inputs + 1) * rows * ffn * size)
    kernels.append(Kernel("activation", "activation", VECTOR, layers, activation))
    kernels += [_gemm(gemm, 1, logits, dtype) for gemm in embedding_projections(architecture)[1:]]
    kernels.append(_gemm(lm_head(architecture), 1, logits, dtype))
    kernels.append(_sampler(architecture, logits, size))
    return kernels


def decode_step(
    architecture: ModelArchitecture,
    batch: float,
    context_tokens: float,
    dtype: str = "float16",
    kv_dtype: str | None = None,
) -> list[Kernel]:
    """Return the kernels of a step that makes one token for each of `batch` sequences of `context_tokens`."""
    return step_kernels(
        architecture, decode_sequences=batch, context_tokens=context_tokens, dtype=dtype, kv_dtype=kv_dtype
    )


def prefill_step(
    architecture: ModelArchitecture,
    sequences: float,
    prompt_tokens: float,
    dtype: str = "float16",
    kv_dtype: str | None = None,
) -> list[Kernel]:
    """Return the kernels of a step that takes in whole prompts and makes the first token of each."""
    return step_kernels(
        architecture,
        decode_sequences=0.0,
        context_tokens=0.0,
        prefill_sequences=sequences,
        prompt_tokens=prompt_tokens,
        dtype=dtype,
        kv_dtype=kv_dtype,
    )


def total(kernels: Sequence[Kernel], kernel_class: str | None = None) -> Work:
    """Return the work of all kernels, or of those of one class."""
    chosen = [one for one in kernels if kernel_class in (None, one.kernel_class)]
    return sum((one.work * one.count for one in chosen), NOTHING)


def model_flop(architecture: ModelArchitecture, tokens: float, attended_tokens: float) -> float:
    """Return the operations of `tokens` by the convention of MFU: two a parameter, embeddings included, and four a
    layer and unit of all heads for each of the `attended_tokens`, the sum over tokens of what each attends to.
    """
    width = architecture.heads * architecture.head_dim
    return 2 * architecture.parameter_count() * tokens + 4 * architecture.layers * width * attended_tokens


def _gemm(gemm: Gemm, count: int, rows: float, dtype: str) -> Kernel:
    return Kernel(
        gemm.name, "matmul", TENSOR, count, gemm.work(rows, dtype), float(gemm.parameters * dtype_bytes(dtype))
    )


def _embedding(architecture: ModelArchitecture, rows: float, size: int) -> Kernel:
    """OPT adds a learned position of hidden width to the token's embedding."""
    moved = 2 * architecture.word_embed_proj_dim
    if architecture.family == "opt":
        moved += 3 * architecture.hidden_size
    return Kernel("embedding", "embedding", VECTOR, 1, Work(0.0, rows * moved * size))


def _sampler(architecture: ModelArchitecture, rows: float, size: int) -> Kernel:
    """Logits are read, written as FP32 and read again for the greatest one."""
    elements = rows * architecture.vocabulary_size
    return Kernel("sampler", "sampling", VECTOR, 1, Work(elements, elements * (size + 2 * FLOAT32_BYTES)))
