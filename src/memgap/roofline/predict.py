"""What the roofline allows: step time, utilisation, KV capacity and the throughput ceiling of a model on a GPU.

The time of a step is the sum over its kernels of the longer of operations / peak and bytes / bandwidth, and of what
goes over the links between GPUs. That is a bound by the datasheet and the model's shape with nothing fitted: no launch
gaps, no host, every kernel at a peak. The plain lower bound is weaker: all operations at peak, or weights and KV cache
once at full bandwidth, whichever takes longer, and nothing over links.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from memgap.errors import UserError
from memgap.models.architecture import ModelArchitecture, dtype_bytes
from memgap.models.cache import cache_type
from memgap.roofline.gpus import GIB, Gpu
from memgap.roofline.parallel import Parallel
from memgap.roofline.work import (
    LINK,
    TENSOR,
    Kernel,
    decode_step,
    main_peak,
    model_flop,
    prefill_step,
    total,
)

MEMORY, COMPUTE, LINKS = "memory", "compute", "link"
UTILIZATION = 0.9
"""Share of the card's memory that the engine may use; vLLM's own default."""
ALLOWANCE_BYTES = 2 * GIB
"""Set aside on each card for activations, CUDA graphs and the engine's context."""
BLOCK_TOKENS = 16
_VERY_LARGE = 2.0**30


@dataclass(frozen=True)
class Setup:
    """A model on `gpus` GPUs that share its weights, heads and KV cache (tensor parallelism), or spread as `parallel`
    says.

    `efficiency` is the share of the datasheet's bandwidth that kernels reach; 1 is the pure roofline. `dtype` is that
    of activations and of weights that are not rounded, `kv_dtype` that of the KV cache. `link_bytes_s` is what the
    links of one GPU carry each way, in place of the table's; where neither is known, communication takes no time.
    """

    architecture: ModelArchitecture
    gpu: Gpu
    dtype: str = "float16"
    kv_dtype: str | None = None
    gpus: int = 1
    efficiency: float = 1.0
    utilization: float = UTILIZATION
    allowance_bytes: float = ALLOWANCE_BYTES
    parallel: Parallel | None = None
    link_bytes_s: float | None = None

    def __post_init__(self) -> None:
        """Raise UserError for a setup that cannot be."""
        self.gpu.peak_flop_s(self.dtype)
        cache_type(self.cache_dtype)
        self.split.check(self.architecture.decoder)
        for name, share in (("efficiency", self.efficiency), ("memory utilisation", self.utilization)):
            if not 0 < share <= 1:
                raise UserError(f"the {name} is {share:g}, but must lie above 0 and be 1 at most.")

    @property
    def split(self) -> Parallel:
        """How the model is spread."""
        return Parallel(tensor=self.gpus) if self.parallel is None else self.parallel

    @property
    def cache_dtype(self) -> str:
        """The dtype of the KV cache."""
        return self.architecture.kv_dtype(self.dtype, self.kv_dtype)

    @property
    def bandwidth_bytes_s(self) -> float:
        """Reachable bandwidth of one GPU."""
        return self.gpu.bandwidth_bytes_s * self.efficiency

    @property
    def link_rate_bytes_s(self) -> float | None:
        """What the links of one GPU carry each way, None where it is not known."""
        return self.link_bytes_s or self.gpu.link_bytes_s

    def peak_flop_s(self, unit: str = TENSOR, kind: str = "") -> float:
        """Return the peak of one GPU, of the tensor units (of `kind`, such as fp8, where it has them) or of the vector
        units.
        """
        if unit != TENSOR:
            return self.gpu.vector_flop_s
        return self.gpu.flop_s.get(kind) or self.gpu.peak_flop_s(self.dtype)

    @property
    def ridge_flop_byte(self) -> float:
        """The intensity in FLOP/B at which the memory roof meets the compute roof."""
        return self.peak_flop_s() / self.bandwidth_bytes_s

    @property
    def weights_bytes_per_gpu(self) -> float:
        """Bytes of weights on one GPU; the mean one where GPUs differ."""
        return self.split.weight_bytes(self.architecture.decoder, dtype_bytes(self.dtype))

    def decode(self, batch: float, context_tokens: float) -> list[Kernel]:
        """Return the kernels of a decode step of `batch` sequences."""
        return decode_step(self.architecture, batch, context_tokens, self.dtype, self.cache_dtype, self.split)

    def prefill(self, sequences: float, prompt_tokens: float) -> list[Kernel]:
        """Return the kernels of a prefill step."""
        return prefill_step(self.architecture, sequences, prompt_tokens, self.dtype, self.cache_dtype, self.split)


def kernel_time_s(setup: Setup, kernel: Kernel) -> float:
    """Return the roofline's time of all launches of a kernel, in seconds."""
    if kernel.unit == LINK:
        rate = setup.link_rate_bytes_s
        return kernel.count * kernel.link_bytes / rate if rate else 0.0
    return kernel.count * max(_compute_s(setup, kernel), kernel.work.bytes / setup.bandwidth_bytes_s)


def _compute_s(setup: Setup, kernel: Kernel) -> float:
    return 0.0 if kernel.unit == LINK else kernel.work.flop / setup.peak_flop_s(kernel.unit, kernel.peak)


def step_time_s(setup: Setup, kernels: Sequence[Kernel]) -> float:
    """Return the sum of the kernels' times, in seconds."""
    return sum(kernel_time_s(setup, kernel) for kernel in kernels)


def lower_bound_s(setup: Setup, kernels: Sequence[Kernel]) -> float:
    """Return the plain lower bound in seconds: tensor work at its peak, or weights and KV cache moved once."""
    computing = sum(kernel.count * _compute_s(setup, kernel) for kernel in kernels if kernel.unit == TENSOR)
    needed = sum(kernel.count * kernel.required_bytes for kernel in kernels)
    return max(computing, needed / setup.bandwidth_bytes_s)


def class_times_s(setup: Setup, kernels: Sequence[Kernel]) -> dict[str, float]:
    """Return the time by kernel class, in seconds, the longest first."""
    times: dict[str, float] = {}
    for kernel in kernels:
        times[kernel.kernel_class] = times.get(kernel.kernel_class, 0.0) + kernel_time_s(setup, kernel)
    return dict(sorted(times.items(), key=lambda item: -item[1]))


def bound(setup: Setup, kernels: Sequence[Kernel]) -> str:
    """Return "memory", "compute" or "link": under which roof the kernels spend most of their time."""
    times = {MEMORY: 0.0, COMPUTE: 0.0, LINKS: 0.0}
    for kernel in kernels:
        if kernel.unit == LINK:
            roof = LINKS
        else:
            roof = MEMORY if kernel.work.bytes / setup.bandwidth_bytes_s >= _compute_s(setup, kernel) else COMPUTE
        times[roof] += kernel_time_s(setup, kernel)
    return max(times, key=lambda roof: times[roof])


@dataclass(frozen=True)
class DecodePrediction:
    """A decode step by the roofline. `flop_s` and `intensity_flop_byte` place one GPU in the roofline; MBU counts the
    weights, KV cache and state that the step reads, MFU follows `memgap.roofline.work.model_flop`, by the peak that
    most of the weights are multiplied at. `communication_s` is None where the links are needed and not known.
    """

    batch: float
    context_tokens: float
    step_s: float
    lower_bound_s: float
    throughput_tok_s: float
    flop_s: float
    intensity_flop_byte: float
    mbu_fraction: float
    mfu_fraction: float
    bound: str
    communication_s: float | None
    class_s: dict[str, float]
    class_intensity: dict[str, float]


def predict_decode(setup: Setup, batch: float, context_tokens: float) -> DecodePrediction:
    """Return the prediction of a decode step; raises UserError for a batch or context that is not above 0."""
    check_positive(batch=batch, context_tokens=context_tokens)
    kernels = setup.decode(batch, context_tokens)
    step = step_time_s(setup, kernels)
    work = total(kernels)
    read = sum(
        one.count * one.required_bytes for one in kernels if one.kernel_class in ("matmul", "attention", "state")
    )
    flop = model_flop(setup.architecture, batch, batch * context_tokens)
    classes = {"matmul": 0.0, "attention": 0.0} | class_times_s(setup, kernels)
    unknown = setup.link_rate_bytes_s is None and any(one.unit == LINK for one in kernels)
    return DecodePrediction(
        batch=batch,
        context_tokens=context_tokens,
        step_s=step,
        lower_bound_s=lower_bound_s(setup, kernels),
        throughput_tok_s=batch / step,
        flop_s=work.flop / step,
        intensity_flop_byte=work.intensity,
        mbu_fraction=read / step / setup.gpu.bandwidth_bytes_s,
        mfu_fraction=flop / step / (setup.peak_flop_s(TENSOR, main_peak(setup.architecture)) * setup.split.gpus),
        bound=bound(setup, kernels),
        communication_s=None if unknown else classes.get("communication", 0.0),
        class_s=classes,
        class_intensity={name: total(kernels, name).intensity for name in classes},
    )


def predict_prefill_s(setup: Setup, sequences: float, prompt_tokens: float) -> float:
    """Return the roofline's time of a prefill step of whole prompts, in seconds; UserError for numbers not above 0."""
    check_positive(sequences=sequences, prompt_tokens=prompt_tokens)
    return step_time_s(setup, setup.prefill(sequences, prompt_tokens))


def check_positive(**values: float) -> None:
    """Raise UserError unless all values are finite and above 0."""
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise UserError(f"{name.replace('_', ' ')} is {value:g}, but must be a number above 0.")


def kv_pool_bytes_per_gpu(setup: Setup) -> float:
    """Return what a GPU has for KV cache and state: memory x utilisation - weights - allowance; 0 where weights do not
    fit.
    """
    budget = setup.gpu.memory_bytes * setup.utilization - setup.allowance_bytes
    return max(0.0, budget - setup.weights_bytes_per_gpu)


def kv_capacity_tokens(setup: Setup) -> int:
    """Return how many tokens the KV caches of a server hold, those of all its data-parallel groups together; 0 where
    weights do not fit, and for a model without KV cache.

    A token counts in all layers with attention, also where a window would forget it.
    """
    token = setup.split.kv_bytes_per_token(setup.architecture.decoder, cache_type(setup.cache_dtype))
    tokens = kv_pool_bytes_per_gpu(setup) / token if token else 0.0
    return int(tokens // BLOCK_TOKENS) * BLOCK_TOKENS * setup.split.data


def largest_batch(setup: Setup, context_tokens: float) -> int:
    """Return how many sequences of `context_tokens` the KV caches hold, in whole blocks and with their fixed state;
    UserError for a context that is not above 0.
    """
    check_positive(context_tokens=context_tokens)
    rounded = math.ceil(context_tokens / BLOCK_TOKENS) * BLOCK_TOKENS
    sizes = cache_type(setup.cache_dtype), dtype_bytes(setup.dtype)
    each = setup.split.sequence_bytes(setup.architecture.decoder, rounded, *sizes)
    return int(kv_pool_bytes_per_gpu(setup) / each) * setup.split.data


def leaves_memory_roof_at(setup: Setup, context_tokens: float, kernel_class: str | None = None) -> float | None:
    """Return the batch from which a decode step (or one kernel class of it) takes longer to compute than to move.

    Operations are a straight line over the batch, and bytes nearly so (more tokens touch more experts), so it is where
    the two meet. None means never: each further sequence brings more bytes, at this bandwidth, than operations, as
    attention does with its own KV cache.
    """

    def excess(batch: float) -> float:
        found = 0.0
        for one in setup.decode(batch, context_tokens):
            if kernel_class in (None, one.kernel_class) and one.unit != LINK:
                computing = one.work.flop / setup.peak_flop_s(TENSOR, one.peak)
                found += one.count * (computing - one.work.bytes / setup.bandwidth_bytes_s)
        return found

    if excess(_VERY_LARGE) <= 0:
        return None
    low, high = 0.0, _VERY_LARGE
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (low, middle) if excess(middle) > 0 else (middle, high)
        if high - low <= 1e-9 * high:
            break
    return high


@dataclass(frozen=True)
class Ceiling:
    """The most tokens a second that decoding reaches at a context, and what holds it there.

    `at_largest_batch_tok_s` is with all that the KV cache holds (0 where it holds nothing), `limit_tok_s` what it would
    tend to with memory without end; `limit` names the kernel class that takes most of each further sequence's time and
    its roof.
    """

    largest_batch: int
    at_largest_batch_tok_s: float
    limit_tok_s: float
    limit: str


def throughput_ceiling(setup: Setup, context_tokens: float) -> Ceiling:
    """Return the ceiling of decode throughput at `context_tokens`."""
    batch = largest_batch(setup, context_tokens)
    far, farther = (setup.decode(times * _VERY_LARGE, context_tokens) for times in (1.0, 2.0))
    each_s = (step_time_s(setup, farther) - step_time_s(setup, far)) / _VERY_LARGE
    name = next(iter(class_times_s(setup, far)))
    roof = bound(setup, [one for one in far if one.kernel_class == name])
    reached = batch / step_time_s(setup, setup.decode(batch, context_tokens)) if batch else 0.0
    return Ceiling(batch, reached, 1 / each_s, f"{name} ({roof})")
