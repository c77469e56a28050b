"""FLOP and DRAM bytes that the attention and matrix products of a decode step ask for, from the model's shape alone."""

from memgap.models.registry import load_registry
from memgap.roofline.work import Work, decode_step, total


def step_work(model: str, kernel_class: str, batch: float, context_tokens: float) -> Work | None:
    """Return the work of a class of kernels ("attention", "matmul") in one decode step of a batch.

    None for a model that the registry does not know and where the context's length is unknown.
    """
    entry = load_registry().get(model)
    if entry is None or not context_tokens > 0:
        return None
    return total(decode_step(entry.architecture, batch, context_tokens, entry.dtype), kernel_class)
