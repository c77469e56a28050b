"""Number formats of weights and of the KV cache: what a checkpoint or a server's flag says of them, and their bytes.

A format is read from `quantization_config` in config.json, from the files that stand beside it (`hf_quant_config.json`
of NVIDIA ModelOpt, `quantize_config.json` of early GPTQ), or from the server's flag. Tensors that a checkpoint leaves
in 16 bits are found by name, with the wildcards and regular expressions that the checkpoints use.
"""

import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memgap.errors import UserError
from memgap.models.fields import suggest

FP8, INT8, FP4 = "fp8", "int8", "fp4"
"""Kinds of tensor units, as the GPU table names their peaks."""

ROUTER, HEAD, EMBEDDING, LINEAR, EXPERT = "router", "head", "embedding", "linear", "expert"
"""What a matrix is for; only `linear` and `expert` are quantised unless a checkpoint names another one."""


@dataclass(frozen=True)
class NumberFormat:
    """How one matrix of n x k elements is stored.

    `scale_rows` and `scale_columns` are the block that shares a scale: 0 means all rows (columns). `peak` is the kind
    of tensor unit that multiplies it where activations are rounded too; None where it is multiplied in 16 bits.
    """

    name: str
    bits: float
    scale_bits: float = 0.0
    scale_rows: int = 0
    scale_columns: int = 0
    peak: str | None = None

    def bytes_of(self, n: int, k: int) -> float:
        """Return the bytes of a matrix of `n` x `k` with its scales."""
        rows = 1 if self.scale_rows == 0 else -(-n // self.scale_rows)
        columns = 1 if self.scale_columns == 0 else -(-k // self.scale_columns)
        return n * k * self.bits / 8 + rows * columns * self.scale_bits / 8


FP8_TENSOR = NumberFormat("fp8", 8, 32, peak=FP8)
FP8_CHANNEL = NumberFormat("fp8-channel", 8, 32, 1, peak=FP8)
INT8_CHANNEL = NumberFormat("int8", 8, 32, 1, peak=INT8)
INT8_WEIGHTS = NumberFormat("int8-weights", 8, 16, 1)
MXFP4 = NumberFormat("mxfp4", 4, 8, 1, 32)
MXFP8 = NumberFormat("mxfp8", 8, 8, 1, 32, peak=FP8)
NVFP4 = NumberFormat("nvfp4", 4, 8, 1, 16, peak=FP4)
NVFP4_WEIGHTS = NumberFormat("nvfp4-weights", 4, 8, 1, 16)
NF4 = NumberFormat("nf4", 4, 32, 1, 64)


def fp8_block(rows: int, columns: int) -> NumberFormat:
    """Return FP8 with one 32-bit scale for each block of `rows` x `columns`."""
    return NumberFormat(f"fp8-block{rows}x{columns}", 8, 32, rows, columns, peak=FP8)


def int_group(bits: int, group: int, zero_points: bool, activations: str | None = None) -> NumberFormat:
    """Return an integer format of `bits` with a 16-bit scale for `group` inputs of a row (all of them where it is -1),
    and a zero point of `bits` where there are zero points.
    """
    name = f"int{bits}" + ("" if group < 1 else f"-g{group}")
    return NumberFormat(name, bits, 16 + (bits if zero_points else 0), 1, max(group, 0), activations)


SHORT: Mapping[str, Mapping[str, Any]] = {
    "fp8": {"quant_method": "fp8", "activation_scheme": "dynamic"},
    "fp8-block": {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]},
    "int8": {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": {"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": True, "dynamic": False},
                "input_activations": {
                    "num_bits": 8,
                    "type": "int",
                    "strategy": "token",
                    "symmetric": True,
                    "dynamic": True,
                },
            }
        },
    },
    "awq": {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"},
    "gptq": {
        "quant_method": "gptq",
        "bits": 4,
        "group_size": 128,
        "desc_act": False,
        "sym": True,
        "modules_in_block_to_quantize": [
            ["self_attn.k_proj", "self_attn.v_proj", "self_attn.q_proj"],
            ["self_attn.o_proj"],
            ["mlp.up_proj", "mlp.gate_proj"],
            ["mlp.down_proj"],
        ],
    },
    "mxfp4": {"quant_method": "mxfp4"},
    "nvfp4": {
        "quant_method": "modelopt",
        "quant_algo": "NVFP4",
        "kv_cache_quant_algo": None,
        "group_size": 16,
        "exclude_modules": ["lm_head"],
    },
}
"""Formats by a short name, each as the checkpoints' `quantization_config` says it. The modules of GPTQ are named
because vLLM looks for them in the weights' files otherwise, and serves a model without files in 16 bits."""

_ALGORITHMS: Mapping[str, NumberFormat] = {
    "FP8": FP8_TENSOR,
    "FP8_PER_CHANNEL_PER_TOKEN": FP8_CHANNEL,
    "FP8_PB_WO": fp8_block(128, 128),
    "FP8_BLOCK": fp8_block(128, 128),
    "NVFP4": NVFP4,
    "NVFP4_AWQ": NVFP4,
    "W4A16_NVFP4": NVFP4_WEIGHTS,
    "W4A16_MXFP4": MXFP4,
    "MXFP4": MXFP4,
    "MXFP8": MXFP8,
    "W4A16_AWQ": int_group(4, 128, False),
    "INT4_AWQ": int_group(4, 128, False),
    "W4A8_AWQ": int_group(4, 128, False, FP8),
    "W8A16": INT8_WEIGHTS,
    "W8A8_SQ_PER_CHANNEL": INT8_CHANNEL,
    "INT8_SQ": INT8_CHANNEL,
}
"""Formats by ModelOpt's name."""

_FLAGS: Mapping[str, NumberFormat] = {
    "fp8": FP8_TENSOR,
    "fp8_per_tensor": FP8_TENSOR,
    "ptpc_fp8": FP8_CHANNEL,
    "fbgemm_fp8": FP8_CHANNEL,
    "w8a8_fp8": FP8_CHANNEL,
    "fp8_per_block": fp8_block(128, 128),
    "blockwise_fp8": fp8_block(128, 128),
    "w8a8_int8": INT8_CHANNEL,
    "int8_per_channel_weight_only": INT8_WEIGHTS,
    "bitsandbytes": NF4,
    "mxfp8": MXFP8,
    "mxfp4": MXFP4,
    "modelopt_fp4": NVFP4,
    "modelopt": FP8_TENSOR,
}
"""Formats by the value of a server's flag that rounds a 16-bit checkpoint while it loads."""

_EXPERTS_ONLY = {"experts_int8": INT8_WEIGHTS, "moe_wna16": int_group(4, 128, False)}

Chooser = Callable[[Sequence[str], str], NumberFormat | None]
"""From the names that checkpoints may give a matrix, and its role, to its format; None for 16 bits."""


@dataclass(frozen=True)
class Quantization:
    """Which format a model's matrices have, by name, and the KV cache's type where the checkpoint names one.

    `summary` is one short text for tables.
    """

    summary: str
    choose: Chooser
    kv_dtype: str | None = None


def matches(pattern: str, name: str) -> bool:
    """Tell whether a pattern of a checkpoint names the module `name` or one that holds it.

    Compared part by part from the layers on, since what stands before them differs between engines. `re:` begins a
    regular expression on the whole name.
    """
    if pattern.startswith("re:"):
        try:
            expression = re.compile(pattern[3:])
        except re.error:
            return False
        prefixes = ("", "model.", "language_model.model.", "model.language_model.")
        return any(expression.match(prefix + name) for prefix in prefixes)
    own, wanted = name.split("."), pattern.split(".")
    for start in ("layers", "h", "blocks"):
        if start in wanted:
            wanted = wanted[wanted.index(start) :]
            break
    while len(wanted) > 1 and wanted[-1] in ("*", "weight", "bias"):
        wanted.pop()
    if len(wanted) > 1 and wanted[0] == "*":
        wanted = wanted[1:]
    return any(
        all(fnmatch.fnmatchcase(part, want) for part, want in zip(own[at : at + len(wanted)], wanted, strict=True))
        for at in range(len(own) - len(wanted) + 1)
    )


def _named(patterns: Sequence[str], names: Sequence[str]) -> bool:
    return any(matches(pattern, name) for pattern in patterns for name in names)


def _excluding(chosen: NumberFormat, patterns: Sequence[str], roles: Sequence[str] = (LINEAR, EXPERT)) -> Chooser:
    def choose(names: Sequence[str], role: str) -> NumberFormat | None:
        return None if role not in roles or _named(patterns, names) else chosen

    return choose


def read_quantization(config: Mapping[str, Any], where: str) -> Quantization:
    """Return what a `quantization_config` says; raises UserError, naming the key, for one that is not known here."""
    content = dict(config)
    if isinstance(content.get("quantization"), Mapping):
        content = {**content, **content["quantization"]}
    method = content.get("quant_method")
    if method is None and content.get("quant_algo") is not None:
        method = "modelopt"
    if method is None and content.get("bits") is not None:
        method = "gptq"
    if not isinstance(method, str) or method.lower() not in _METHODS:
        raise UserError(
            f"{where}: quantization_config has the quant_method {method!r}, which is not known here "
            f"({suggest(str(method), list(_METHODS))})"
        )
    return _METHODS[method.lower()](content, f"{where}: quantization_config")


def _patterns(content: Mapping[str, Any], *names: str) -> list[str]:
    found: list[str] = []
    for name in names:
        value = content.get(name) or []
        if isinstance(value, str):
            value = [value]
        found += [one for one in value if isinstance(one, str) and one]
    return found


def _whole(content: Mapping[str, Any], names: Sequence[str], where: str, default: int) -> int:
    """Return the first of the names that is given, all being names of the same."""
    name = next((one for one in names if content.get(one) is not None), names[0])
    value = content.get(name)
    if value is None:
        value = default
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value == 0:
        raise UserError(f"{where}: {name} is {value!r}, but must be a whole number")
    return value


def _fp8(content: Mapping[str, Any], where: str) -> Quantization:
    block = content.get("weight_block_size")
    if block is None:
        chosen = FP8_CHANNEL if content.get("quant_method") == "fbgemm_fp8" else FP8_TENSOR
    elif isinstance(block, Sequence) and len(block) == 2 and all(isinstance(one, int) and one > 0 for one in block):
        chosen = fp8_block(block[0], block[1])
    else:
        raise UserError(f"{where}: weight_block_size is {block!r}, but must be two whole numbers")
    skipped = _patterns(content, "modules_to_not_convert", "ignored_layers", "ignore")
    return Quantization(chosen.name, _excluding(chosen, skipped), _cache_of(content))


def _integers(content: Mapping[str, Any], where: str) -> Quantization:
    bits = _whole(content, ("bits", "w_bit"), where, 4)
    group = _whole(content, ("group_size", "q_group_size"), where, 128)
    zeros = bool(content.get("zero_point", not content.get("sym", True)))
    chosen = int_group(bits, group, zeros)
    skipped = _patterns(content, "modules_to_not_convert")
    roles = (LINEAR, EXPERT, HEAD) if content.get("lm_head") is True else (LINEAR, EXPERT)
    return Quantization(
        f"{str(content.get('quant_method') or 'gptq').lower()}-{chosen.name}", _excluding(chosen, skipped, roles)
    )


def _mxfp4(content: Mapping[str, Any], where: str) -> Quantization:
    skipped = _patterns(content, "modules_to_not_convert")
    return Quantization(MXFP4.name, _excluding(MXFP4, skipped, (EXPERT,)))


def _bitsandbytes(content: Mapping[str, Any], where: str) -> Quantization:
    eight = bool(content.get("load_in_8bit") or content.get("_load_in_8bit"))
    if not eight and content.get("load_in_4bit", content.get("_load_in_4bit")) is False:
        return Quantization("16-bit", lambda _names, _role: None)
    chosen = INT8_WEIGHTS if eight else NF4
    return Quantization(chosen.name, _excluding(chosen, _patterns(content, "llm_int8_skip_modules")))


def _modelopt(content: Mapping[str, Any], where: str) -> Quantization:
    algorithm = content.get("quant_algo")
    skipped = _patterns(content, "exclude_modules", "ignore", "modules_to_not_convert")
    cache = _cache_of(content)
    layers = content.get("quantized_layers")
    if isinstance(layers, Mapping) and (algorithm in (None, "MIXED_PRECISION")):
        named = {
            str(name): _algorithm(one.get("quant_algo"), where, one.get("group_size"))
            for name, one in layers.items()
            if isinstance(one, Mapping)
        }
        return Quantization("mixed", _by_layer(named, skipped), cache)
    if algorithm is None:
        return Quantization("16-bit", lambda _names, _role: None, cache)
    chosen = _algorithm(algorithm, where, content.get("group_size"))
    return Quantization(chosen.name, _excluding(chosen, skipped), cache)


def _by_layer(named: Mapping[str, NumberFormat], skipped: Sequence[str]) -> Chooser:
    """Return a chooser by a list of modules; an expert's own entry stands for all experts of its layer."""
    known = {_from_layers(re.sub(r"\.experts\.\d+\.", ".experts.", name)): chosen for name, chosen in named.items()}

    def choose(names: Sequence[str], role: str) -> NumberFormat | None:
        if _named(skipped, names):
            return None
        for name in names:
            parts = name.split(".")
            for length in range(len(parts), 0, -1):
                chosen = known.get(".".join(parts[:length]))
                if chosen is not None:
                    return chosen
        return None

    return choose


def _from_layers(name: str) -> str:
    parts = name.split(".")
    return ".".join(parts[parts.index("layers") :]) if "layers" in parts else parts[-1]


def _algorithm(name: object, where: str, group: object = None) -> NumberFormat:
    known = _ALGORITHMS.get(str(name).upper())
    if known is None:
        raise UserError(f"{where}: quant_algo is {name!r}, which is not known here ({suggest(str(name), _ALGORITHMS)})")
    if known.name.startswith("int4") and isinstance(group, int):
        return int_group(4, group, False, known.peak)
    return known


def _compressed(content: Mapping[str, Any], where: str) -> Quantization:
    groups = content.get("config_groups")
    skipped = _patterns(content, "ignore", "exclude_modules")
    if not groups and content.get("kv_cache_scheme"):  # a checkpoint that rounds nothing but the cache
        return Quantization("16-bit", lambda _names, _role: None, _cache_of(content))
    if not isinstance(groups, Mapping) or not groups:
        raise UserError(f"{where}: config_groups is missing")
    choosers: list[tuple[list[str], NumberFormat]] = []
    for one in groups.values():
        if not isinstance(one, Mapping):
            raise UserError(f"{where}: config_groups must hold mappings")
        if one.get("weights") is not None:
            targets = _patterns(one, "targets") or ["Linear"]
            choosers.append((targets, _group_format(one, where)))

    def choose(names: Sequence[str], role: str) -> NumberFormat | None:
        if role not in (LINEAR, EXPERT, HEAD) or _named(skipped, names):
            return None
        for targets, chosen in choosers:
            by_class = bool({"Linear", "FusedMoE"} & set(targets)) and role != HEAD
            if by_class or _named([one for one in targets if one != "Linear"], names):
                return chosen
        return None

    names = sorted({chosen.name for _, chosen in choosers})
    return Quantization("+".join(names) or "16-bit", choose, _cache_of(content))


def _group_format(group: Mapping[str, Any], where: str) -> NumberFormat:
    weights, inputs = group["weights"], group.get("input_activations")
    bits, kind = weights.get("num_bits"), weights.get("type", "int")
    size, strategy = weights.get("group_size"), weights.get("strategy")
    rounded = isinstance(inputs, Mapping) and inputs.get("num_bits") in (4, 8)
    if kind == "float" and bits == 8:
        if strategy == "block":
            rows, columns = weights.get("block_structure") or (128, 128)
            chosen = fp8_block(int(rows), int(columns))
        else:
            chosen = MXFP8 if strategy == "group" else FP8_CHANNEL if strategy == "channel" else FP8_TENSOR
        return chosen if rounded else NumberFormat(chosen.name + "-weights", 8, 32, chosen.scale_rows)
    if kind == "float" and bits == 4:
        if size == 32:
            return MXFP4
        return NVFP4 if rounded else NVFP4_WEIGHTS
    if kind == "int" and bits == 8 and rounded:
        return INT8_CHANNEL
    if kind == "int" and isinstance(bits, int) and bits in (2, 3, 4, 8):
        peak = None if not rounded else FP8 if inputs is not None and inputs.get("type") == "float" else INT8
        return int_group(bits, size if isinstance(size, int) else -1, weights.get("symmetric") is False, peak)
    raise UserError(f"{where}: weights of type {kind!r} with num_bits {bits!r} are not known here")


def _quark(content: Mapping[str, Any], where: str) -> Quantization:
    overall = content.get("global_quant_config")
    weight = overall.get("weight") if isinstance(overall, Mapping) else None
    if isinstance(weight, Sequence) and weight:
        weight = weight[-1]
    name = weight.get("dtype") if isinstance(weight, Mapping) else None
    known = {"fp8_e4m3": FP8_TENSOR, "int8": INT8_CHANNEL, "fp4": MXFP4, "int4": int_group(4, 128, False)}
    if name not in known:
        raise UserError(f"{where}: global_quant_config has weights of dtype {name!r}, which are not known here")
    cache = content.get("kv_cache_group") or (content.get("export") or {}).get("kv_cache_group")
    return Quantization(
        known[name].name, _excluding(known[name], _patterns(content, "exclude")), "fp8" if cache else None
    )


_METHODS: Mapping[str, Callable[[Mapping[str, Any], str], Quantization]] = {
    "fp8": _fp8,
    "fbgemm_fp8": _fp8,
    "awq": _integers,
    "awq_marlin": _integers,
    "gptq": _integers,
    "gptq_marlin": _integers,
    "auto-round": _integers,
    "auto_round": _integers,
    "intel/auto-round": _integers,
    "mxfp4": _mxfp4,
    "gpt_oss_mxfp4": _mxfp4,
    "bitsandbytes": _bitsandbytes,
    "modelopt": _modelopt,
    "modelopt_fp4": _modelopt,
    "modelopt_mixed": _modelopt,
    "compressed-tensors": _compressed,
    "quark": _quark,
}


def _cache_of(content: Mapping[str, Any]) -> str | None:
    """Return the KV cache's type that a checkpoint names: ModelOpt by a word, compressed-tensors by a scheme."""
    algorithm, scheme = content.get("kv_cache_quant_algo"), content.get("kv_cache_scheme")
    if isinstance(scheme, Mapping):
        return "fp8" if scheme.get("num_bits") == 8 and scheme.get("type") == "float" else None
    named = algorithm if isinstance(algorithm, str) else scheme
    if isinstance(named, str):
        return {"FP8": "fp8", "NVFP4": "nvfp4"}.get(named.upper())
    return None


def flag_quantization(flag: str) -> Quantization | None:
    """Return what a server's quantisation flag makes of a 16-bit checkpoint; None where that is not known here."""
    if flag in _EXPERTS_ONLY:
        return Quantization(flag, _excluding(_EXPERTS_ONLY[flag], (), (EXPERT,)))
    chosen = _FLAGS.get(flag)
    return None if chosen is None else Quantization(chosen.name, _excluding(chosen, ()))


def quantization_config(given: object, where: str) -> dict[str, Any]:
    """Return the `quantization_config` for what a user wrote: a short name of SHORT, or such a mapping itself.

    A mapping may say `method`, `bits` and `group` shortly. Raises UserError for anything else.
    """
    if isinstance(given, str):
        if given not in SHORT:
            raise UserError(f"{where}: unknown format {given!r} ({suggest(given, SHORT)})")
        return dict(SHORT[given])
    if not isinstance(given, Mapping):
        raise UserError(f"{where}: got {given!r}, but must be one of {', '.join(SHORT)} or a quantization_config")
    content = dict(given)
    if "method" in content:
        named = content.pop("method")
        base = SHORT.get(str(named))
        if base is None:
            raise UserError(f"{where}: unknown method {named!r} ({suggest(str(named), SHORT)})")
        if "group" in content:
            content["group_size"] = content.pop("group")
        unknown = [key for key in content if key not in base]
        if unknown:
            raise UserError(f"{where}: {unknown[0]} does not belong to {named} ({suggest(unknown[0], base)})")
        content = {**base, **content}
    read_quantization(content, where)
    return content
