"""The table of predictions: one row a model, GPU and batch."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from memgap.models.architecture import ModelArchitecture, dtype_bytes
from memgap.models.formats import quantization_config
from memgap.models.registry import resolve_model
from memgap.roofline.gpus import find_gpu
from memgap.roofline.parallel import Parallel
from memgap.roofline.predict import (
    Setup,
    kv_capacity_tokens,
    largest_batch,
    leaves_memory_roof_at,
    predict_decode,
    predict_prefill_s,
    throughput_ceiling,
)

NEVER = "never"
"""Where decode leaves the memory roof at no batch: attention brings each sequence's own KV cache."""

COLUMNS = (
    "model",
    "gpu",
    "gpus",
    "tensor_parallel",
    "pipeline_parallel",
    "data_parallel",
    "expert_parallel",
    "dtype",
    "weight_format",
    "kv_dtype",
    "efficiency_fraction",
    "context_tokens",
    "batch",
    "fits",
    "step_ms",
    "step_lower_bound_ms",
    "throughput_tok_s",
    "flop_s",
    "intensity_flop_byte",
    "bound",
    "mbu_fraction",
    "mfu_fraction",
    "matmul_ms",
    "attention_ms",
    "communication_ms",
    "other_ms",
    "matmul_intensity_flop_byte",
    "attention_intensity_flop_byte",
    "prefill_one_prompt_ms",
    "parameters",
    "active_parameters",
    "weights_bytes",
    "weights_bytes_per_gpu",
    "kv_bytes_per_token",
    "state_bytes_per_sequence",
    "kv_capacity_tokens",
    "largest_batch",
    "step_leaves_memory_roof_at_batch",
    "matmul_leaves_memory_roof_at_batch",
    "throughput_at_largest_batch_tok_s",
    "throughput_limit_tok_s",
    "throughput_limited_by",
    "gpu_source",
)


def setup_of(
    model: str,
    gpu: str,
    config_models: Mapping[str, Any] | None = None,
    *,
    dtype: str | None = None,
    kv_dtype: str | None = None,
    quantization: str | None = None,
    gpus: int = 1,
    parallel: Parallel | None = None,
    efficiency: float = 1.0,
) -> Setup:
    """Return the setup of a model and a GPU by their names; `dtype` is the model's own unless given, `quantization` a
    format of weights in place of the checkpoint's.

    Raises UserError for an unknown model, GPU, dtype or format.
    """
    found = resolve_model(model, config_models)
    architecture = ModelArchitecture.from_dict(found["architecture"])
    if quantization is not None:
        content = None if quantization == "none" else quantization_config(quantization, f"model {model}")
        architecture = dataclasses.replace(architecture, quantization=content)
    own_kv = None if kv_dtype in (None, "auto") else kv_dtype
    own = dtype or found["dtype"]
    return Setup(architecture, find_gpu(gpu), own, own_kv, gpus, efficiency, parallel=parallel)


def predictions(model: str, setup: Setup, batches: Sequence[int], context_tokens: float) -> pd.DataFrame:
    """Return the rows of one model on one GPU; columns as in COLUMNS. Raises UserError for impossible numbers."""
    gpu, architecture, split = setup.gpu, setup.architecture, setup.split
    largest = largest_batch(setup, context_tokens)
    ceiling = throughput_ceiling(setup, context_tokens)
    same = {
        "model": model,
        "gpu": gpu.alias,
        "gpus": split.gpus,
        "tensor_parallel": split.tensor,
        "pipeline_parallel": split.pipeline,
        "data_parallel": split.data,
        "expert_parallel": "yes" if split.expert else "no",
        "dtype": setup.dtype,
        "weight_format": architecture.weight_format or setup.dtype,
        "kv_dtype": setup.cache_dtype,
        "efficiency_fraction": setup.efficiency,
        "context_tokens": context_tokens,
        "prefill_one_prompt_ms": 1000 * predict_prefill_s(setup, 1, context_tokens),
        "parameters": architecture.parameter_count(),
        "active_parameters": architecture.decoder.active_parameters(),
        "weights_bytes": architecture.weight_bytes(setup.dtype),
        "weights_bytes_per_gpu": round(setup.weights_bytes_per_gpu),
        "kv_bytes_per_token": architecture.kv_bytes_per_token(setup.cache_dtype),
        "state_bytes_per_sequence": round(architecture.decoder.state_bytes(dtype_bytes(setup.dtype))),
        "kv_capacity_tokens": kv_capacity_tokens(setup),
        "largest_batch": largest,
        "step_leaves_memory_roof_at_batch": _or_never(leaves_memory_roof_at(setup, context_tokens)),
        "matmul_leaves_memory_roof_at_batch": _or_never(leaves_memory_roof_at(setup, context_tokens, "matmul")),
        "throughput_at_largest_batch_tok_s": ceiling.at_largest_batch_tok_s,
        "throughput_limit_tok_s": ceiling.limit_tok_s,
        "throughput_limited_by": ceiling.limit,
        "gpu_source": f"{gpu.source.title} ({gpu.source.year}), {gpu.source.url}",
    }
    rows = []
    for batch in batches:
        found = predict_decode(setup, batch, context_tokens)
        matmul, attention = found.class_s["matmul"], found.class_s["attention"]
        told = found.communication_s
        rows.append(
            same
            | {
                "batch": batch,
                "fits": "yes" if batch <= largest else "no",
                "step_ms": 1000 * found.step_s,
                "step_lower_bound_ms": 1000 * found.lower_bound_s,
                "throughput_tok_s": found.throughput_tok_s,
                "flop_s": found.flop_s,
                "intensity_flop_byte": found.intensity_flop_byte,
                "bound": found.bound,
                "mbu_fraction": found.mbu_fraction,
                "mfu_fraction": found.mfu_fraction,
                "matmul_ms": 1000 * matmul,
                "attention_ms": 1000 * attention,
                "communication_ms": math.nan if told is None else 1000 * told,
                "other_ms": 1000 * (found.step_s - matmul - attention - (told or 0.0)),
                "matmul_intensity_flop_byte": found.class_intensity["matmul"],
                "attention_intensity_flop_byte": found.class_intensity.get("attention", 0.0),
            }
        )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _or_never(batch: float | None) -> float | str:
    return NEVER if batch is None else round(batch, 1)


def planned_predictions(plan: Mapping[str, Any]) -> pd.DataFrame:
    """Return the predictions that a section of the configuration asks for, all models on all GPUs.

    `plan` holds the section's keys and `config_models`, the configuration's models. Raises UserError for unknown names.
    """
    tables = []
    for model in plan["models"]:
        for gpu in plan["gpus"]:
            setup = setup_of(
                model,
                gpu,
                plan.get("config_models"),
                dtype=plan.get("dtype"),
                kv_dtype=plan.get("kv_dtype"),
                quantization=plan.get("quantization"),
                parallel=parallel_of(plan),
                efficiency=plan.get("efficiency", 1.0),
            )
            tables.append(predictions(model, setup, plan["batch"], plan["context_tokens"]))
    return pd.concat(tables, ignore_index=True)


def parallel_of(plan: Mapping[str, Any]) -> Parallel:
    """Return how a plan spreads a server: `gpus_per_server` is tensor parallelism unless another kind is named."""
    given = plan.get("parallel") or {}
    tensor = given.get("tensor") or (1 if given else plan.get("gpus_per_server", 1))
    return Parallel(tensor, given.get("pipeline") or 1, given.get("data") or 1, bool(given.get("expert")))
