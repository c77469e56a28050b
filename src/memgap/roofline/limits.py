"""Model bandwidth and model FLOP utilization (MBU, MFU) of a measured point: its traffic and work by the GPU's peaks.

Only what the model itself asks for counts, as in the definitions of both terms: a decode step reads every weight once,
but for experts that none of its tokens chose, and the KV cache of the running sequences once; a token costs two
operations a weight that it meets, and four a layer, unit of all heads and token of context for attention
(`memgap.roofline.work.model_flop`). Weights and caches count in the format that they are stored in, operations by the
peak that most of the weights are multiplied at.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from memgap.engine.held import held_of
from memgap.models.architecture import ModelArchitecture, dtype_bytes
from memgap.roofline.gpus import gpu_of_hardware, gpu_of_nvml, known_gpus
from memgap.roofline.work import main_peak, model_flop, untouched_share


@cache
def gpu_table() -> dict[str, dict[str, float]]:
    """Return `flop_s` (dense FP16 tensor) and `bandwidth_bytes_s` of the known GPUs by name."""
    return {
        name: {"flop_s": gpu.peak_flop_s("float16"), "bandwidth_bytes_s": gpu.bandwidth_bytes_s}
        for name, gpu in known_gpus().items()
    }


def peaks(gpu_name: str | None) -> dict[str, float] | None:
    """Return the peaks of one GPU by NVML's name; None for an unknown one, since nothing is guessed."""
    gpu = gpu_of_nvml(gpu_name)
    return gpu_table()[gpu.name] if gpu else None


def utilization(point: Mapping[str, Any]) -> dict[str, float]:
    """Return `mbu_fraction` and `mfu_fraction` of a stored point; absent where something it needs is unknown.

    MBU = (weights + mean KV bytes in use) x decode steps/s / bandwidth, with steps/s = output tokens/s / mean running
    requests, over the whole window, prefill and idle time included; replicas each read their own weights. MFU counts
    prompt and output tokens. Of a server on several GPUs, weights and pool are those of all its ranks and engines, and
    the peaks are those of all GPUs that it is spread over. A group of servers has neither.
    """
    hardware, summary, engine = point["hardware"], point["summary"], point["engine"]
    gpu = gpu_of_hardware(hardware)
    limits = gpu_table()[gpu.name] if gpu else None
    server = point["record"]["server"]
    replicas = server["replicas"]
    running, rate = summary.get("mean_running_reqs"), summary.get("output_throughput_tok_s")
    if limits is None or not running or not rate or not engine.get("weights_bytes") or "topology" in server:
        return {}
    gpus = max(int(hardware.get("gpu_count_of_server") or hardware.get("gpu_count") or 1), 1)
    model = held_of(point["record"])
    found = {}
    usage, pool = summary.get("kv_cache_usage_mean_fraction"), engine.get("kv_pool_bytes")
    if usage is not None and pool:
        unread = untouched_share(model.architecture, running / replicas, model.dtype)
        weights_bytes = engine["weights_bytes"] * (1.0 - unread)
        moved_bytes_s = replicas * (weights_bytes + usage * pool) * rate / running
        found["mbu_fraction"] = moved_bytes_s / (limits["bandwidth_bytes_s"] * gpus)
    kind = main_peak(model.architecture)
    peak = known_gpus()[gpu.name].flop_s.get(kind, limits["flop_s"]) if gpu else limits["flop_s"]
    found["mfu_fraction"] = _flop(model.architecture, summary) / summary["duration_s"] / (peak * gpus)
    return found


def weight_read_ms(record: Mapping[str, Any], gpu_name: str | None) -> float | None:
    """Return the time in ms to read the weights that a decode step of a record's batch reads once, at the GPU's
    bandwidth; None on a machine whose bandwidth is not known. An embedding table that is no output layer is not read.
    """
    gpu = gpu_of_nvml(gpu_name)
    if gpu is None:
        return None
    held = held_of(record)
    shape = held.architecture
    batch = float(record.get("batch") or record.get("batch_cap", 1))
    read = held.weights_bytes * (1.0 - untouched_share(shape, batch, held.dtype))
    if not shape.tied_embeddings:
        read -= shape.vocabulary_size * shape.word_embed_proj_dim * dtype_bytes(held.dtype)
    return 1e3 * read / gpu.bandwidth_bytes_s


def _flop(architecture: ModelArchitecture, summary: Mapping[str, float]) -> float:
    """Return the operations of all completed requests, taking every request as long as the mean one."""
    requests = max(summary["requests_completed"], 1.0)
    prompt, output = summary["prompt_tokens"] / requests, summary["output_tokens"] / requests
    length = prompt + output
    return requests * model_flop(architecture, length, length * length / 2)
