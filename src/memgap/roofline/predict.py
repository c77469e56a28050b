"""What the roofline allows: step time, utilisation, KV capacity and the throughput ceiling of a model on a GPU.

The time of a step is the sum over its kernels of the longer of operations / peak and bytes / bandwidth. That is a bound
by the datasheet and the model's shape with nothing fitted: no launch gaps, no host, every kernel at a peak. The plain
lower bound is weaker: all operations at peak, or weights and KV cache once at full bandwidth, whichever takes longer.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from memgap.errors import UserError
from memgap.models.architecture import ModelArchitecture, dtype_bytes
from memgap.roofline.gpus import GIB, Gpu
from memgap.roofline.work import TENSOR, Kernel, decode_step, model_flop, prefill_step, total

MEMORY, COMPUTE = "memory", "compute"
UTILIZATION = 0.9
"""Share of the card's memory that the engine may use; vLLM's own default."""
ALLOWANCE_BYTES = 2 * GIB
"""Set aside on each card for activations, CUDA graphs and the engine's context."""
BLOCK_TOKENS = 16
_VERY_LARGE = 2.0**30


@dataclass(frozen=True)
class Setup:
    """A model on `gpus` GPUs that share its weights, heads and KV cache evenly, without any cost of communication.

    `efficiency` is the share of the datasheet's bandwidth that kernels reach; 1 is the pure roofline. `dtype` is that
    of weights and activations, `kv_dtype` that of the KV cache.
    """

    architecture: ModelArchitecture
    gpu: Gpu
    dtype: str = "float16"
    kv_dtype: str | None = None
    gpus: int = 1
    efficiency: float = 1.0
    utilization: float = UTILIZATION
    allowance_bytes: float = ALLOWANCE_BYTES

    def __post_init__(self) -> None:
        """Raise UserError for a setup that cannot be."""
        self.gpu.peak_flop_s(self.dtype)
        dtype_bytes(self.cache_dtype)
        if self.gpus < 1 or self.architecture.kv_heads % self.gpus:
            raise UserError(
                f"{self.architecture.kv_heads} KV heads cannot be split evenly over {self.gpus} GPUs; "
                "choose a number of GPUs that divides them."
            )
        for name, share in (("efficiency", self.efficiency), ("memory utilisation", self.utilization)):
            if not 0 < share <= 1:
                raise UserError(f"the {name} is {share:g}, but must lie above 0 and be 1 at most.")

    @property
    def cache_dtype(self) -> str:
        """The dtype of the KV cache."""
        return self.kv_dtype or self.dtype

    @property
    def bandwidth_bytes_s(self) -> float:
        """Reachable bandwidth of all GPUs together."""
        return self.gpu.bandwidth_bytes_s * self.efficiency * self.gpus

    def peak_flop_s(self, unit: str = TENSOR) -> float:
        """Return the peak of all GPUs together, of the tensor or of the vector units."""
        return self.gpus * (self.gpu.peak_flop_s(self.dtype) if unit == TENSOR else self.gpu.vector_flop_s)


def kernel_time_s(setup: Setup, kernel: Kernel) -> float:
    """Return the roofline's time of all launches of a kernel, in seconds."""
    return kernel.count * max(_compute_s(setup, kernel), kernel.work.bytes / setup.bandwidth_bytes_s)


def _compute_s(setup: Setup, kernel: Kernel) -> float:
    return kernel.work.flop / setup.peak_flop_s(kernel.unit)


def step_time_s(setup: Setup, kernels: Sequence[Kernel]) -> float:
    """Return the sum of the kernels' times, in seconds."""
    return sum(kernel_time_s(setup, kernel) for kernel in kernels)


def lower_bound_s(setup: Setup, kernels: Sequence[Kernel]) -> float:
    """Return the plain lower bound in seconds: tensor work at its peak, or weights and KV cache moved once."""
    flop = sum(kernel.count * kernel.work.flop for kernel in kernels if kernel.unit == TENSOR)
    needed = sum(kernel.count * kernel.required_bytes for kernel in kernels)
    return max(flop / setup.peak_flop_s(), needed / setup.bandwidth_bytes_s)


def class_times_s(setup: Setup, kernels: Sequence[Kernel]) -> dict[str, float]:
    """Return the time by kernel class, in seconds, the longest first."""
    times: dict[str, float] = {}
    for kernel in kernels:
        times[kernel.kernel_class] = times.get(kernel.kernel_class, 0.0) + kernel_time_s(setup, kernel)
    return dict(sorted(times.items(), key=lambda item: -item[1]))


def bound(setup: Setup, kernels: Sequence[Kernel]) -> str:
    """Return "memory" or "compute": under which roof the kernels spend most of their time."""
    memory = sum(
        kernel_time_s(setup, kernel)
        for kernel in kernels
        if kernel.work.bytes / setup.bandwidth_bytes_s >= _compute_s(setup, kernel)
    )
    return MEMORY if 2 * memory >= step_time_s(setup, kernels) else COMPUTE


@dataclass(frozen=True)
class DecodePrediction:
    """A decode step by the roofline. `flop_s` and `intensity_flop_byte` place it in the roofline; MBU counts the
    weights and the KV cache that the step reads, MFU follows `memgap.roofline.work.model_flop`.
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
    class_s: dict[str, float]
    class_intensity: dict[str, float]


def predict_decode(setup: Setup, batch: float, context_tokens: float) -> DecodePrediction:
    """Return the prediction of a decode step; raises UserError for a batch or context that is not above 0."""
    check_positive(batch=batch, context_tokens=context_tokens)
    kernels = decode_step(setup.architecture, batch, context_tokens, setup.dtype, setup.cache_dtype)
    step = step_time_s(setup, kernels)
    work = total(kernels)
    read = sum(one.count * one.required_bytes for one in kernels if one.kernel_class in ("matmul", "attention"))
    flop = model_flop(setup.architecture, batch, batch * context_tokens)
    classes = class_times_s(setup, kernels)
    return DecodePrediction(
        batch=batch,
        context_tokens=context_tokens,
        step_s=step,
        lower_bound_s=lower_bound_s(setup, kernels),
        throughput_tok_s=batch / step,
        flop_s=work.flop / step,
        intensity_flop_byte=work.intensity,
        mbu_fraction=read / step / (setup.gpu.bandwidth_bytes_s * setup.gpus),
        mfu_fraction=flop / step / setup.peak_flop_s(),
        bound=bound(setup, kernels),
        class_s=classes,
        class_intensity={name: total(kernels, name).intensity for name in classes},
    )


def predict_prefill_s(setup: Setup, sequences: float, prompt_tokens: float) -> float:
    """Return the roofline's time of a prefill step of whole prompts, in seconds; UserError for numbers not above 0."""
    check_positive(sequences=sequences, prompt_tokens=prompt_tokens)
    return step_time_s(
        setup, prefill_step(setup.architecture, sequences, prompt_tokens, setup.dtype, setup.cache_dtype)
    )


def check_positive(**values: float) -> None:
    """Raise UserError unless all values are finite and above 0."""
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise UserError(f"{name.replace('_', ' ')} is {value:g}, but must be a number above 0.")


def kv_capacity_tokens(setup: Setup) -> int:
    """Return how many tokens the KV cache holds: memory x utilisation - weights - allowance; 0 where weights
    do not fit.
    """
    budget = setup.gpus * (setup.gpu.memory_bytes * setup.utilization - setup.allowance_bytes)
    left = budget - setup.architecture.weight_bytes(setup.dtype)
    tokens = max(0.0, left) / setup.architecture.kv_bytes_per_token(setup.cache_dtype)
    return int(tokens // BLOCK_TOKENS) * BLOCK_TOKENS


def largest_batch(setup: Setup, context_tokens: float) -> int:
    """Return how many sequences of `context_tokens` the KV cache holds, in whole blocks; UserError for none above 0."""
    check_positive(context_tokens=context_tokens)
    kept = context_tokens
    if setup.architecture.sliding_window is not None:
        kept = min(kept, setup.architecture.sliding_window)
    return kv_capacity_tokens(setup) // (math.ceil(kept / BLOCK_TOKENS) * BLOCK_TOKENS)


def leaves_memory_roof_at(setup: Setup, context_tokens: float, kernel_class: str | None = None) -> float | None:
    """Return the batch from which a decode step (or one kernel class of it) takes longer to compute than to move.

    Operations and bytes are straight lines over the batch, so it is where the two meet. None means never: each further
    sequence brings more bytes, at this bandwidth, than operations, as attention does with its own KV cache.
    """
    one, two = (
        total(decode_step(setup.architecture, batch, context_tokens, setup.dtype, setup.cache_dtype), kernel_class)
        for batch in (1.0, 2.0)
    )
    bytes_each = (two.bytes - one.bytes) / setup.bandwidth_bytes_s
    flop_each = (two.flop - one.flop) / setup.peak_flop_s()
    fixed = one.bytes / setup.bandwidth_bytes_s - bytes_each - (one.flop / setup.peak_flop_s() - flop_each)
    return fixed / (flop_each - bytes_each) if flop_each > bytes_each else None


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
    far, farther = (
        decode_step(setup.architecture, times * _VERY_LARGE, context_tokens, setup.dtype, setup.cache_dtype)
        for times in (1.0, 2.0)
    )
    each_s = (step_time_s(setup, farther) - step_time_s(setup, far)) / _VERY_LARGE
    name = next(iter(class_times_s(setup, far)))
    roof = bound(setup, [one for one in far if one.kernel_class == name])
    reached = batch / step_time_s(
        setup, decode_step(setup.architecture, batch, context_tokens, setup.dtype, setup.cache_dtype)
    )
    return Ceiling(batch, reached if batch else 0.0, 1 / each_s, f"{name} ({roof})")
