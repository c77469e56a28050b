"""The work of one step of a model, counted from its shape: operations, and bytes to and from the GPU's memory.

An operation is one addition or multiplication, so a multiply-add counts two. Every kernel reads its inputs and writes
its outputs once; what caches save is not known without running it. Counted as the engine runs them: the projections of
Q, K and V are one product, so are up and gate; a residual addition is part of the norm after it; only tokens that need
logits pass the LM head. Not counted: the softmax's operations (matrix units do not do them), tables of blocks,
launches, the rounding of activations.

Weights are read in the format that they are stored in, and multiplied at the peak of that format where activations are
rounded too (FP8, INT8, FP4), else at that of 16 bits. Of routed experts those are read that the tokens of a step choose
in the mean, each token choosing evenly. A step over several GPUs is the way of its tokens through one GPU of each
stage.

Batches and lengths may be fractions, such as means over a run.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from memgap.models.architecture import ModelArchitecture, dtype_bytes
from memgap.models.blocks import ROW, Attention, Block, Decoder, Linear
from memgap.models.cache import CacheType, cache_type
from memgap.models.formats import FP4, FP8, INT8
from memgap.roofline.parallel import ONE_GPU, Parallel, expert_bytes

TENSOR, VECTOR, LINK = "tensor", "vector", "link"
FLOAT32_BYTES = 4
_ROTARY_FLOP = 3.0
_INPUT_BYTES = {FP8: 1.0, INT8: 1.0, FP4: 0.5}


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
class Kernel:
    """A kernel that a step launches `count` times, or a mean step; `work` is that of one launch on one GPU.

    `required_bytes` is the part of its bytes that no cache can save: weights, KV cache and state. `unit` (tensor,
    vector or link) says which peak bounds it, `peak` which kind of tensor unit (empty: that of the activations' type).
    `link_bytes` go over the links of one GPU. `kernel_class` is named as in the tables of kernels.
    """

    name: str
    kernel_class: str
    unit: str
    count: float
    work: Work
    required_bytes: float = 0.0
    peak: str = ""
    link_bytes: float = 0.0


def matmul(m: float, n: float, k: float, dtype: str) -> Work:
    """Return the work of a product of m x k and k x n in `dtype`: 2mnk operations, all three matrices moved once.

    Raises UserError for an unknown dtype.
    """
    return Work(2.0 * m * n * k, (m * k + k * n + m * n) * dtype_bytes(dtype))


def layer_gemms(architecture: ModelArchitecture) -> list[Linear]:
    """Return the matrix products of a first layer: qkv, out, up (up_gate with a gated feed-forward block), down, ..."""
    return list(architecture.decoder.blocks[0].matrices)


def lm_head(architecture: ModelArchitecture) -> Linear:
    """Return the product that makes logits; its weight is read whole, also where it is tied to the embeddings."""
    head = architecture.decoder.head
    if head is None:
        return Linear("lm_head", 0, architecture.decoder.embedding_width)
    return head


def embedding_projections(architecture: ModelArchitecture) -> list[Linear]:
    """Return the products between embedding and hidden width: none where the two are equal."""
    return list(architecture.decoder.projections)


def attention_decode(
    architecture: ModelArchitecture, batch: float, context_tokens: float, kv_dtype: str, dtype: str = "float16"
) -> Work:
    """Return the work of the first attention layer's kernel in a decode step, for `batch` sequences of
    `context_tokens`.

    Keys and values are read once in `kv_dtype` and shared by the heads of a group; queries are read and outputs written
    in `dtype`. With one KV head a query head and 16 bits that is about 1 FLOP/B. Raises UserError for an unknown dtype.
    """
    block = _first_attention(architecture)
    return _decode(block, ONE_GPU, batch, context_tokens, cache_type(kv_dtype), dtype_bytes(dtype))[0]


def attention_prefill(architecture: ModelArchitecture, sequences: float, prompt_tokens: float, dtype: str) -> Work:
    """Return the work of the first attention layer's kernel over whole prompts, each token attending to those before.

    Queries, keys and values are read and outputs written once, as tiled kernels do. Raises UserError for an unknown
    dtype.
    """
    return _prefill(_first_attention(architecture), ONE_GPU, sequences, prompt_tokens, dtype_bytes(dtype))


def kv_write(architecture: ModelArchitecture, tokens: float, kv_dtype: str, dtype: str) -> Work:
    """Return the work of the first attention layer's kernel that puts keys and values of new tokens into the cache."""
    attention = _attention(_first_attention(architecture))
    written = cache_type(kv_dtype).token_bytes(attention) - attention.index_bytes
    return Work(0.0, tokens * (written + attention.cache_elements * dtype_bytes(dtype)))


def _first_attention(architecture: ModelArchitecture) -> Block:
    return next(one for one in architecture.decoder.blocks if one.attention is not None)


def _attention(block: Block) -> Attention:
    assert block.attention is not None
    return block.attention


def _decode(
    block: Block, parallel: Parallel, batch: float, context: float, cache: CacheType, size: float
) -> tuple[Work, float]:
    """Return the work of a layer's attention in a decode step, and the bytes of cache that it reads."""
    attention = _attention(block)
    heads, attended = attention.heads / parallel.tensor, attention.attended(context)
    widths = attention.key_width + attention.value_width
    if attention.latent_width is not None:
        widths = attention.latent_width + attention.latent_value_width
    read = batch * attended * cache.entry_bytes(attention) * parallel.kv_share(block)
    return Work(2.0 * batch * attended * heads * widths, read + batch * heads * widths * size), read


def _prefill(block: Block, parallel: Parallel, sequences: float, prompt: float, size: float) -> Work:
    attention = _attention(block)
    heads, kv_heads = attention.heads / parallel.tensor, attention.kv_heads * parallel.kv_share(block)
    if attention.latent_width is not None:
        kv_heads = heads
    widths, kept = attention.key_width + attention.value_width, attention.attended(prompt)
    pairs = kept * (kept + 1) / 2 + (prompt - kept) * kept
    moved = sequences * prompt * (heads + kv_heads) * widths
    return Work(2.0 * sequences * pairs * heads * widths, moved * size)


@dataclass(frozen=True)
class _Step:
    """What a step's kernels are counted from: tokens of one GPU's group, and bytes of elements."""

    decoder: Decoder
    parallel: Parallel
    decoding: float
    context: float
    prefilling: float
    prompt: float
    size: float
    cache: CacheType

    @property
    def rows(self) -> float:
        return self.decoding + self.prefilling * self.prompt


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
    parallel: Parallel = ONE_GPU,
) -> list[Kernel]:
    """Return the kernels of a step that decodes some sequences and prefills others, as chunked prefill mixes them.

    `context_tokens` is the mean length that a decoded token attends to, `prompt_tokens` that of the prompts,
    `logit_rows` how many tokens pass the LM head (all sequences, unless given). `dtype` is that of activations and of
    weights that are not rounded, `kv_dtype` that of the KV cache (the same, unless given). Sequences are those of the
    whole server; the kernels are those of one GPU of each stage of a pipeline, whose micro-batches are as many as its
    stages. Raises UserError for an unknown dtype.
    """
    split = parallel.data * parallel.pipeline
    step = _Step(
        architecture.decoder,
        parallel,
        decode_sequences / split,
        context_tokens,
        prefill_sequences / split,
        prompt_tokens,
        dtype_bytes(dtype),
        cache_type(kv_dtype or dtype),
    )
    decoder, rows = step.decoder, step.rows
    logits = (decode_sequences + prefill_sequences if logit_rows is None else logit_rows) / split
    kernels = [_embedding(step)]
    kernels += [_gemm(step, one, None, 1, rows) for one in decoder.projections[:1]]
    for block in decoder.blocks:
        kernels += _block_kernels(step, block)
    if "final norm" in decoder.around:
        kernels.append(_norm(step, 1))
    kernels += [_gemm(step, one, None, 1, logits) for one in decoder.projections[1:]]
    if decoder.head is not None:
        kernels.append(_gemm(step, decoder.head, None, 1, logits))
        kernels.append(_sampler(step, logits))
    return [*kernels, *_pipeline_sends(step)]


def _block_kernels(step: _Step, block: Block) -> list[Kernel]:
    count, rows = block.count, step.rows
    kernels = [_gemm(step, one, block, count, rows) for one in block.matrices]
    if block.attention is not None:
        kernels += _attention_kernels(step, block)
    if block.state is not None:
        kernels.append(_state_kernel(step, block))
    if block.norms:
        kernels.append(_norm(step, block.norms * count))
    activated = sum(one.k for one in block.matrices if one.name.endswith("down"))
    if activated:
        kernels.append(_activation(step, count, rows * activated / step.parallel.tensor))
    if block.experts is not None:
        kernels += _expert_kernels(step, block)
    return [*kernels, *_block_communication(step, block)]


def _gemm(step: _Step, one: Linear, block: Block | None, count: int, rows: float) -> Kernel:
    if block is None:
        n, k, share = one.n / step.parallel.tensor, float(one.k), 1.0 / step.parallel.tensor
    else:
        (n, k), share = step.parallel.slice_of(one, block), step.parallel.share_of(one, block)
    weights = one.weight_bytes(step.size) * share
    peak = "" if one.format is None or one.format.peak is None else one.format.peak
    moved = rows * (k * _INPUT_BYTES.get(peak, step.size) + n * step.size)
    flop = 2.0 * rows * n * k + (rows * n if one.bias else 0.0)
    return Kernel(one.name, "matmul", TENSOR, count, Work(flop, weights + moved), weights, peak)


def _attention_kernels(step: _Step, block: Block) -> list[Kernel]:
    attention, count, parallel = _attention(block), block.count, step.parallel
    kernels = []
    if step.decoding:
        work, read = _decode(block, parallel, step.decoding, step.context, step.cache, step.size)
        kernels.append(Kernel("attention_decode", "attention", TENSOR, count, work, read))
        if attention.index_width:
            flop = 2.0 * step.decoding * step.context * attention.index_heads * attention.index_width
            scanned = step.decoding * step.context * attention.index_bytes
            kernels.append(Kernel("indexer", "attention", TENSOR, count, Work(flop, scanned), scanned, FP8))
    if step.prefilling * step.prompt:
        work = _prefill(block, parallel, step.prefilling, step.prompt, step.size)
        kernels.append(Kernel("attention_prefill", "attention", TENSOR, count, work))
    if step.rows and attention.caches:
        share = step.rows * parallel.kv_share(block)
        written = share * step.cache.entry_bytes(attention) + step.rows * attention.index_bytes
        work = Work(0.0, written + share * attention.cache_elements * step.size)
        kernels.append(Kernel("kv_write", "kv_write", VECTOR, count, work, written))
    if attention.rotary_width:
        kv_heads = 1 if attention.latent_width is not None else attention.kv_heads * parallel.kv_share(block)
        turned = step.rows * (attention.heads / parallel.tensor + kv_heads) * attention.rotary_width
        work = Work(_ROTARY_FLOP * turned, 2 * turned * step.size)
        kernels.append(Kernel("rotary", "elementwise", VECTOR, count, work))
    return kernels


def _state_kernel(step: _Step, block: Block) -> Kernel:
    """A decoded token reads and writes its sequence's state, a prompt writes it once."""
    state, tensor = block.state, step.parallel.tensor
    assert state is not None
    moved = (2 * step.decoding + step.prefilling) * state.bytes_of(step.size) / tensor
    return Kernel("state", "state", VECTOR, block.count, Work(step.rows * state.flop / tensor, moved), moved)


def _expert_kernels(step: _Step, block: Block) -> list[Kernel]:
    """All tokens of the data-parallel groups meet the experts; a GPU works for those that it holds."""
    experts, parallel = block.experts, step.parallel
    assert experts is not None
    tokens, gpus = step.rows * parallel.data, parallel.expert_gpus
    touched, pairs = experts.touched(tokens) / gpus, tokens * experts.per_token / (gpus if parallel.expert else 1)
    slices = 1 if parallel.expert else gpus
    kernels = []
    for one in experts.matrices:
        n, k = (one.n, one.k / slices) if one.split == ROW else (one.n / slices, float(one.k))
        peak = "" if one.format is None or one.format.peak is None else one.format.peak
        weights = touched * one.weight_bytes(step.size)
        moved = pairs * (k * _INPUT_BYTES.get(peak, step.size) + n * step.size)
        work = Work(2.0 * pairs * n * k, weights + moved)
        kernels.append(Kernel(one.name, "matmul", TENSOR, block.count, work, weights, peak))
    return [*kernels, _activation(step, block.count, pairs * experts.ffn_size / slices)]


def _block_communication(step: _Step, block: Block) -> list[Kernel]:
    parallel = step.parallel
    payload = step.rows * step.decoder.hidden * step.size
    mixes = block.attention is not None or block.state is not None
    feeds = block.ffn_size > 0 or (block.experts is not None and parallel.data == 1)
    kernels = []
    if parallel.tensor > 1 and (mixes or feeds):
        over = 2.0 * (parallel.tensor - 1) / parallel.tensor * payload
        times = block.count * (int(mixes) + int(feeds))
        kernels.append(Kernel("all_reduce", "communication", LINK, times, NOTHING, link_bytes=over))
    if block.experts is not None and parallel.data > 1:
        gpus = parallel.expert_gpus
        if parallel.expert:
            met = gpus * (1.0 - (1.0 - 1.0 / gpus) ** block.experts.per_token)
            first = block.experts.matrices[0].format
            sent = 1.0 if first is not None and first.peak is not None else step.size
            there = step.rows / parallel.tensor * met * (gpus - 1) / gpus * step.decoder.hidden
            over, name = there * (sent + step.size), "all_to_all"
        else:
            over, name = 2.0 * payload * parallel.data * (gpus - 1) / gpus, "gather_scatter"
        kernels.append(Kernel(name, "communication", LINK, block.count, NOTHING, link_bytes=over))
    return kernels


def _pipeline_sends(step: _Step) -> list[Kernel]:
    if step.parallel.pipeline == 1:
        return []
    payload = step.rows * step.decoder.hidden * step.size / step.parallel.tensor
    return [Kernel("send", "communication", LINK, step.parallel.pipeline - 1, NOTHING, link_bytes=payload)]


def _norm(step: _Step, count: int) -> Kernel:
    elements = step.rows * step.decoder.hidden
    return Kernel("norm", "norm", VECTOR, count, Work(step.decoder.norm_flop * elements, 4 * elements * step.size))


def _activation(step: _Step, count: int, elements: float) -> Kernel:
    inputs = 2 if step.decoder.activation_flop > 1 else 1
    work = Work(step.decoder.activation_flop * elements, (inputs + 1) * elements * step.size)
    return Kernel("activation", "activation", VECTOR, count, work)


def _embedding(step: _Step) -> Kernel:
    """A learned position of hidden width is added to the token's embedding where there is one."""
    moved = 2 * step.decoder.embedding_width + 3 * step.decoder.position_width
    return Kernel("embedding", "embedding", VECTOR, 1, Work(0.0, step.rows * moved * step.size))


def _sampler(step: _Step, rows: float) -> Kernel:
    """Logits are read, written as FP32 and read again for the greatest one."""
    elements = rows * step.decoder.vocabulary
    return Kernel("sampler", "sampling", VECTOR, 1, Work(elements, elements * (step.size + 2 * FLOAT32_BYTES)))


def decode_step(
    architecture: ModelArchitecture,
    batch: float,
    context_tokens: float,
    dtype: str = "float16",
    kv_dtype: str | None = None,
    parallel: Parallel = ONE_GPU,
) -> list[Kernel]:
    """Return the kernels of a step that makes one token for each of `batch` sequences of `context_tokens`."""
    return step_kernels(
        architecture,
        decode_sequences=batch,
        context_tokens=context_tokens,
        dtype=dtype,
        kv_dtype=kv_dtype,
        parallel=parallel,
    )


def prefill_step(
    architecture: ModelArchitecture,
    sequences: float,
    prompt_tokens: float,
    dtype: str = "float16",
    kv_dtype: str | None = None,
    parallel: Parallel = ONE_GPU,
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
        parallel=parallel,
    )


def total(kernels: Sequence[Kernel], kernel_class: str | None = None) -> Work:
    """Return the work of all kernels, or of those of one class."""
    chosen = [one for one in kernels if kernel_class in (None, one.kernel_class)]
    return sum((one.work * one.count for one in chosen), NOTHING)


def model_flop(architecture: ModelArchitecture, tokens: float, attended_tokens: float) -> float:
    """Return the operations of `tokens` by the convention of MFU: two a parameter that a token meets, embeddings
    included, and four a layer and unit of all heads for each of the `attended_tokens`, the sum over tokens of what each
    attends to. Of routed experts those count that a token is sent to; a vision tower does not.
    """
    decoder = architecture.decoder
    met = decoder.active_parameters() - decoder.around.get("vision tower", 0)
    return 2 * met * tokens + 4 * decoder.attention_width() * attended_tokens


def untouched_share(architecture: ModelArchitecture, tokens: float, dtype: str) -> float:
    """Return the share of the weights' bytes that a step of `tokens` leaves unread: experts that no token chose."""
    size, unread = dtype_bytes(dtype), 0.0
    for block in architecture.decoder.blocks:
        if block.experts is not None:
            left = block.experts.count - block.experts.touched(tokens)
            unread += block.count * left * expert_bytes(block.experts, size)
    return unread / architecture.decoder.weight_bytes(size)


def main_peak(architecture: ModelArchitecture) -> str:
    """Return the kind of tensor unit that multiplies most of the weights, empty for that of the activations' type."""
    shares: dict[str, float] = {}
    for block in architecture.decoder.blocks:
        routed = () if block.experts is None else block.experts.matrices
        chosen = 0 if block.experts is None else block.experts.per_token
        for one, times in [*((one, 1) for one in block.matrices), *((one, chosen) for one in routed)]:
            peak = "" if one.format is None or one.format.peak is None else one.format.peak
            shares[peak] = shares.get(peak, 0.0) + block.count * times * one.n * one.k
    return max(shares, key=lambda peak: shares[peak], default="")
