"""What a step costs: features that the roofline and the batch give, times coefficients that a calibration gives."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memgap.roofline.predict import Setup, kernel_time_s, step_time_s
from memgap.roofline.work import step_kernels
from memgap.scheduling.scheduler import Batch

Array = NDArray[np.float64]

FEATURES = (
    *("step", "dense_ms", "decode_attention_ms", "prefill_attention_ms", "sequences"),
    *("prompt_step", "mixed_attention_ms", "eager_step"),
)
"""What a step's time is linear in: the roofline's times of all but attention, of attention to the KV cache and of
prompts; sequences; whether it computes a prompt at all (there is no full CUDA graph for it), attention to the KV cache
once more in such a step (one kernel serves both then), whether it has more tokens than any CUDA graph."""
GRAPH_TOKENS = 512
"""vLLM's default."""
_KNOTS = 160


@dataclass(frozen=True)
class Coefficients:
    """Milliseconds a unit of each of FEATURES."""

    values: tuple[float, ...]

    def array(self) -> Array:
        """As an array of shape (features,)."""
        return np.asarray(self.values)


class Roofline:
    """Step times of a setup from tables, in ms; built once, since counting the kernels of a step takes longer than the
    simulation of one.

    `max_tokens`: most tokens of a step; `max_context`: of a sequence; `graph_tokens`: of a step that has a CUDA graph.
    """

    def __init__(self, setup: Setup, max_tokens: int, max_context: int, graph_tokens: int = GRAPH_TOKENS) -> None:
        rows = _knots(max_tokens)
        one = self._dense(setup, 1, 1)
        dense = [self._dense(setup, count, 1) - one for count in rows]
        head = [self._dense(setup, 1, count) for count in rows]
        every = np.arange(max_tokens + 1)
        self.rows: list[float] = np.interp(every, rows, dense).tolist()
        self.logits: list[float] = np.interp(every, rows, head).tolist()
        contexts = _knots(max_context)
        every = np.arange(max_context + 2)
        decode = [1e3 * _attention_s(setup, decode=count) for count in contexts]
        prefill = [1e3 * _attention_s(setup, prompt=count) for count in contexts]
        self.decode: list[float] = np.interp(every, contexts, decode).tolist()
        self.prefill: list[float] = np.interp(every, [0, *contexts], [0.0, *prefill]).tolist()
        self.graph_tokens = graph_tokens
        self.groups = setup.split.data * setup.split.pipeline

    @staticmethod
    def _dense(setup: Setup, rows: int, logits: int) -> float:
        kernels = step_kernels(
            setup.architecture,
            decode_sequences=rows,
            context_tokens=1.0,
            logit_rows=logits,
            dtype=setup.dtype,
            kv_dtype=setup.cache_dtype,
            parallel=setup.split,
        )
        return 1e3 * step_time_s(setup, [kernel for kernel in kernels if kernel.kernel_class != "attention"])

    def features(self, batch: Batch) -> tuple[float, ...]:
        """Return the values of FEATURES for a batch."""
        decodes, chunks = batch.decodes, batch.chunks
        tokens, prompts = 0, 0.0
        for _, before, count in chunks:
            tokens += count
            prompts += self.prefill[before + count] - self.prefill[before]
        rows = decodes + tokens
        dense = self.rows[rows] + self.logits[min(decodes + len(batch.firsts), rows)]
        attention = decodes * self.decode[batch.context_tokens // decodes] if decodes else 0.0
        sequences = decodes + len(chunks)
        mixed = attention if chunks else 0.0
        eager = float(rows > self.graph_tokens)
        return 1.0, dense, attention, prompts / self.groups, float(sequences), float(bool(chunks)), mixed, eager


def _attention_s(setup: Setup, decode: int = 0, prompt: int = 0) -> float:
    kernels = step_kernels(
        setup.architecture,
        decode_sequences=1.0 if decode else 0.0,
        context_tokens=float(decode),
        prefill_sequences=1.0 if prompt else 0.0,
        prompt_tokens=float(prompt),
        dtype=setup.dtype,
        kv_dtype=setup.cache_dtype,
        parallel=setup.split,
    )
    return sum(kernel_time_s(setup, kernel) for kernel in kernels if kernel.kernel_class == "attention")


def _knots(largest: int) -> Sequence[int]:
    """Return numbers from 1 to `largest`, each about as far from the next in proportion."""
    return sorted(
        {*range(1, min(17, largest + 1)), *np.geomspace(1, max(largest, 2), _KNOTS).round().astype(int).tolist()}
    )
