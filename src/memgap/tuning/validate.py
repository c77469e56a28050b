"""What is wrong with a configuration before any server is started, in one sentence each."""

import difflib
from collections.abc import Collection, Mapping
from typing import Any

from memgap.errors import UserError
from memgap.study.point import whole_flag
from memgap.tuning.speculation import check_speculation

PARALLEL = ("tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size")
SHARE = "gpu-memory-utilization"
FIXED_POOL = ("kv-cache-memory-bytes", "num-gpu-blocks-override")
POSITIVE = (*PARALLEL, "max-num-seqs", "max-num-batched-tokens", "block-size", "max-model-len")


def gpus_of(flags: Mapping[str, Any]) -> int:
    """Return how many GPUs a server with these flags takes: tensor x pipeline x data parallel."""
    product = 1
    for flag in PARALLEL:
        product *= int(flags.get(flag, 1))
    return product


def check_record(record: Mapping[str, Any], gpus: int, where: str) -> None:
    """Raise UserError where the record's server cannot run, or its flags contradict one another.

    `gpus` is how many the machine has or the configuration declares; 0 on a machine without any, which limits nothing.
    """
    flags, model = record["server"]["args"], record["model"]
    for flag in POSITIVE:
        if flag in flags and whole_flag(flags, flag, 1, where) < 1:
            raise UserError(f"{where}: {flag} has to be 1 or more, not {flags[flag]}.")
    _check_shape(flags, model, where)
    _check_gpus(flags, record["server"]["replicas"], gpus, where)
    _check_memory(flags, where)
    _check_batching(flags, where)
    check_speculation(flags, record, where)


def check_varied(flags: Mapping[str, Any], base: Mapping[str, Any], where: str) -> None:
    """Raise UserError where flags differ from what they vary in something that decides nothing.

    Beside a KV cache of set size, vLLM's gpu-memory-utilization is only how much has to be free for a start.
    """
    if flags.get(SHARE) == base.get(SHARE):
        return
    for flag in FIXED_POOL:
        if flag in flags and flags[flag] == base.get(flag):
            raise UserError(f"{where}: {SHARE} does not size the KV cache beside {flag}; vary {flag}, or remove it.")


def check_flags(flags: Collection[str], engine_flags: Collection[str], engine: str, where: str) -> None:
    """Raise UserError where the engine has no such flag; `engine_flags` are all it has, without the dashes."""
    for flag in flags:
        if flag not in engine_flags and f"no-{flag}" not in engine_flags:
            near = difflib.get_close_matches(flag, sorted(engine_flags), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "; remove it or correct its name."
            raise UserError(f"{where}: {engine} has no flag {flag!r}{hint}")


def _check_shape(flags: Mapping[str, Any], model: Mapping[str, Any], where: str) -> None:
    shape = model["architecture"]
    tensor, pipeline = (whole_flag(flags, flag, 1, where) for flag in PARALLEL[:2])
    if shape["heads"] % tensor:
        raise UserError(
            f"{where}: {model['name']} has {shape['heads']} attention heads, which tensor-parallel-size {tensor} does "
            "not divide."
        )
    if shape["kv_heads"] % tensor and tensor % shape["kv_heads"]:
        raise UserError(
            f"{where}: {model['name']} has {shape['kv_heads']} KV heads, which tensor-parallel-size {tensor} neither "
            "divides nor is a multiple of."
        )
    if pipeline > shape["layers"]:
        raise UserError(f"{where}: pipeline-parallel-size {pipeline} is above the {shape['layers']} layers.")


def _check_gpus(flags: Mapping[str, Any], replicas: int, gpus: int, where: str) -> None:
    wanted = gpus_of(flags)
    if gpus and wanted > gpus:
        raise UserError(
            f"{where}: tensor x pipeline x data parallel takes {wanted} GPUs, but there are {gpus} (tuning.gpus, or "
            "resources.gpus)."
        )
    if replicas > 1 and wanted > 1:
        raise UserError(f"{where}: replicas share one GPU, so they cannot be parallel over {wanted}.")


def _check_memory(flags: Mapping[str, Any], where: str) -> None:
    share = flags.get(SHARE)
    if share is not None and (isinstance(share, bool) or not _number(share) or not 0 < float(share) <= 1):
        raise UserError(f"{where}: {SHARE} has to lie above 0 and up to 1, not {share!r}.")


def _check_batching(flags: Mapping[str, Any], where: str) -> None:
    tokens, seats = flags.get("max-num-batched-tokens"), flags.get("max-num-seqs")
    if tokens is not None and seats is not None and int(tokens) < int(seats):
        raise UserError(
            f"{where}: max-num-batched-tokens {tokens} is below max-num-seqs {seats}, so a step cannot hold it."
        )
    length = flags.get("max-model-len")
    chunked = flags.get("enable-chunked-prefill") is not False
    if not chunked and tokens is not None and length is not None and int(tokens) < int(length):
        raise UserError(f"{where}: without chunked prefill max-num-batched-tokens {tokens} has to be {length} or more.")
    for flag in flags:
        if flag.startswith("no-") and flag[3:] in flags:
            raise UserError(f"{where}: {flag} contradicts {flag[3:]}; keep one of the two.")


def _number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True
