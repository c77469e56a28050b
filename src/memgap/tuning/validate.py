"""What is wrong with a configuration before any server is started, in one sentence each."""

import difflib
from collections.abc import Collection, Mapping
from typing import Any

from memgap.engine.given import PARALLEL, GivenFlags
from memgap.errors import UserError
from memgap.tuning.speculation import check_speculation

FIXED_POOL = ("kv_bytes", "kv_blocks")
POSITIVE = (*PARALLEL, "max_seqs", "max_batched_tokens", "block_tokens", "max_model_len")


def check_record(record: Mapping[str, Any], gpus: int, where: str) -> None:
    """Raise UserError where the record's server cannot run, or its flags contradict one another.

    `gpus` is how many the machine has or the configuration declares; 0 on a machine without any, which limits nothing.
    """
    flags = GivenFlags.of(record, where)
    for meaning in POSITIVE:
        if flags.whole(meaning, 1) < 1:
            raise UserError(f"{where}: {flags.name(meaning)} has to be 1 or more, not {flags.get(meaning)}.")
    _check_shape(flags, record["model"], where)
    _check_gpus(flags, record["server"]["replicas"], gpus, where)
    _check_memory(flags, where)
    _check_batching(flags, where)
    _check_contradictions(record["server"]["args"], where)
    check_speculation(flags, record, where)


def check_varied(flags: GivenFlags, base: GivenFlags, where: str) -> None:
    """Raise UserError where flags differ from what they vary in something that decides nothing.

    Beside a KV cache of set size, the share of the GPU's memory is only how much has to be free for a start.
    """
    share = flags.get("memory_fraction")
    if share == base.get("memory_fraction"):
        return
    for meaning in FIXED_POOL:
        if meaning in flags and flags.get(meaning) == base.get(meaning):
            named, pool = flags.name("memory_fraction"), flags.name(meaning)
            raise UserError(f"{where}: {named} does not size the KV cache beside {pool}; vary {pool}, or remove it.")


def check_flags(flags: Collection[str], engine_flags: Collection[str], engine: str, where: str) -> None:
    """Raise UserError where the engine has no such flag; `engine_flags` are all it has, without the dashes."""
    for flag in flags:
        if flag not in engine_flags and f"no-{flag}" not in engine_flags:
            near = difflib.get_close_matches(flag, sorted(engine_flags), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "; remove it or correct its name."
            raise UserError(f"{where}: {engine} has no flag {flag!r}{hint}")


def _check_shape(flags: GivenFlags, model: Mapping[str, Any], where: str) -> None:
    shape = model["architecture"]
    tensor, pipeline = flags.whole("tensor_parallel", 1), flags.whole("pipeline_parallel", 1)
    if shape["heads"] % tensor:
        raise UserError(
            f"{where}: {model['name']} has {shape['heads']} attention heads, which {flags.name('tensor_parallel')} "
            f"{tensor} does not divide."
        )
    if shape["kv_heads"] % tensor and tensor % shape["kv_heads"]:
        raise UserError(
            f"{where}: {model['name']} has {shape['kv_heads']} KV heads, which {flags.name('tensor_parallel')} "
            f"{tensor} neither divides nor is a multiple of."
        )
    if pipeline > shape["layers"]:
        raise UserError(f"{where}: {flags.name('pipeline_parallel')} {pipeline} is above the {shape['layers']} layers.")


def _check_gpus(flags: GivenFlags, replicas: int, gpus: int, where: str) -> None:
    if gpus and flags.gpus > gpus:
        raise UserError(
            f"{where}: tensor x pipeline x data parallel takes {flags.gpus} GPUs, but there are {gpus} (tuning.gpus, "
            "or resources.gpus)."
        )
    if replicas > 1 and flags.gpus > 1:
        raise UserError(f"{where}: replicas share one GPU, so they cannot be parallel over {flags.gpus}.")


def _check_memory(flags: GivenFlags, where: str) -> None:
    share = flags.get("memory_fraction")
    if share is not None and (isinstance(share, bool) or not _number(share) or not 0 < float(share) <= 1):
        raise UserError(f"{where}: {flags.name('memory_fraction')} has to lie above 0 and up to 1, not {share!r}.")


def _check_batching(flags: GivenFlags, where: str) -> None:
    if "max_batched_tokens" not in flags:
        return
    name, tokens = flags.name("max_batched_tokens"), flags.whole("max_batched_tokens", 1)
    seats, length = flags.whole("max_seqs", tokens), flags.whole("max_model_len", tokens)
    if tokens < seats:
        raise UserError(
            f"{where}: {name} {tokens} is below {flags.name('max_seqs')} {seats}, so a step cannot hold it."
        )
    if flags.get("chunked_prefill") is False and tokens < length:
        raise UserError(f"{where}: without chunked prefill {name} {tokens} has to be {length} or more.")


def _check_contradictions(flags: Collection[str], where: str) -> None:
    for flag in flags:
        if flag.startswith("no-") and flag[3:] in flags:
            raise UserError(f"{where}: {flag} contradicts {flag[3:]}; keep one of the two.")


def _number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True
