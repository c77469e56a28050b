"""Translation between a ModelArchitecture and a Hugging Face config.json."""

from collections.abc import Mapping
from typing import Any

from memgap.errors import UserError
from memgap.models.architecture import DECODER, WEIGHT_DTYPES, ModelArchitecture
from memgap.models.keys import NESTED

_MODEL_TYPES = {
    "OPTForCausalLM": "opt",
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "Qwen2ForCausalLM": "qwen2",
}

_BOOKKEEPING = (
    "_name_or_path",
    "_commit_hash",
    "transformers_version",
    "torch_dtype",
    "dtype",
    "quantization_config",
    "compression_config",
    "auto_map",
    "use_cache",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
    "torchscript",
    "use_bfloat16",
    "initializer_range",
    "attention_dropout",
    "hidden_dropout",
    "embd_pdrop",
    "resid_pdrop",
    "attn_pdrop",
    "router_aux_loss_coef",
    "output_router_logits",
    "task_specific_params",
    "label2id",
)
"""Keys that say nothing about a model's shape or how it computes, so that they make no other point of it."""


def to_hf_config(architecture: ModelArchitecture, dtype: str) -> dict[str, Any]:
    """Return the config.json content of a model of this shape whose weights are `dtype`."""
    config = _shape_config(architecture, dtype)
    if architecture.quantization is not None:
        config["quantization_config"] = dict(architecture.quantization)
    return config


def _shape_config(architecture: ModelArchitecture, dtype: str) -> dict[str, Any]:
    if architecture.config is not None:
        return {**architecture.config, "torch_dtype": dtype}
    common: dict[str, Any] = {
        "architectures": [architecture.hf_class],
        "model_type": _MODEL_TYPES[architecture.hf_class],
        "hidden_size": architecture.hidden_size,
        "num_attention_heads": architecture.heads,
        "num_hidden_layers": architecture.layers,
        "vocab_size": architecture.vocabulary_size,
        "max_position_embeddings": architecture.max_length,
        "tie_word_embeddings": architecture.tied_embeddings,
        "torch_dtype": dtype,
        "attention_dropout": 0.0,
        "use_cache": True,
    }
    if architecture.family == "opt":
        return common | {
            "activation_function": architecture.activation,
            "bos_token_id": 2,
            "eos_token_id": 2,
            "pad_token_id": 1,
            "do_layer_norm_before": True,
            "dropout": 0.0,
            "layerdrop": 0.0,
            "ffn_dim": architecture.ffn_size,
            "word_embed_proj_dim": architecture.word_embed_proj_dim,
            "init_std": 0.02,
        }
    config = common | {
        "hidden_act": architecture.activation,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "intermediate_size": architecture.ffn_size,
        "num_key_value_heads": architecture.kv_heads,
        "rms_norm_eps": architecture.norm_epsilon,
        "rope_theta": architecture.rope_theta,
        "initializer_range": 0.02,
    }
    if architecture.rope_scaling is not None:
        config["rope_scaling"] = dict(architecture.rope_scaling)
    if architecture.hf_class == "Qwen2ForCausalLM":
        return config | {"use_sliding_window": False}
    config["head_dim"] = architecture.head_dim
    if architecture.sliding_window is not None:
        return config | {"sliding_window": architecture.sliding_window}
    return config | {"attention_bias": False, "mlp_bias": False, "pretraining_tp": 1}


def from_hf_config(
    config: object, where: str = "config.json", quantization: Mapping[str, Any] | None = None
) -> ModelArchitecture:
    """Return the architecture that a config.json content describes.

    `quantization` is what a file beside it says of the weights' format; it counts where config.json names none.
    Raises UserError, naming the key, for what is not described here and for missing or inconsistent values.
    """
    if not isinstance(config, Mapping):
        raise UserError(f"{where}: must hold a JSON object")
    own = _own_quantization(config) or quantization
    values = _told_by_fields(config, where)
    if values is None:
        values = {"family": DECODER, "config": _cleaned(config)}
    return ModelArchitecture.from_dict(values if own is None else {**values, "quantization": dict(own)}, where)


def _own_quantization(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    nested = (config[key] for key in NESTED if isinstance(config.get(key), Mapping))
    for part in (config, *nested):
        for key in ("quantization_config", "compression_config"):
            if isinstance(part.get(key), Mapping) and part[key]:
                found: Mapping[str, Any] = part[key]
                return found
    return None


def _cleaned(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config without bookkeeping, at every level that holds a model."""
    return {
        key: _cleaned(value) if isinstance(value, Mapping) and (key in NESTED or key.endswith("_config")) else value
        for key, value in config.items()
        if key not in _BOOKKEEPING and not (key == "id2label" and not _has_labels(config))
    }


def _has_labels(config: Mapping[str, Any]) -> bool:
    names = config.get("architectures")
    return isinstance(names, list) and any("Classification" in str(name) for name in names)


def _told_by_fields(config: Mapping[str, Any], where: str) -> dict[str, Any] | None:
    """Return the fields of the families that are told by fields, None for every other model."""
    kind = config.get("model_type")
    names = config.get("architectures")
    plain = names is None or (isinstance(names, list) and len(names) == 1 and names[0] == _CLASSES.get(str(kind)))
    if kind not in _MODEL_TYPES.values() or not plain:
        return None
    if kind == "opt":
        if config.get("do_layer_norm_before") is False or config.get("_remove_final_layer_norm"):
            return None
        if config.get("enable_bias") is False or config.get("layer_norm_elementwise_affine") is False:
            return None
        own = _opt_fields(config)
    else:
        if config.get("attention_bias") or config.get("mlp_bias"):
            return None
        if kind == "qwen2" and (config.get("use_sliding_window") or config.get("head_dim") is not None):
            return None
        if kind == "llama" and config.get("sliding_window") is not None:
            return None
        if "sliding_attention" in (config.get("layer_types") or ()) and kind != "mistral":
            return None
        if not _flat(config.get("rope_scaling") or config.get("rope_parameters")):
            return None
        own = _llama_fields(config, str(kind), where)
    return own | {
        "hidden_size": config.get("hidden_size"),
        "layers": config.get("num_hidden_layers"),
        "heads": config.get("num_attention_heads"),
        "vocabulary_size": config.get("vocab_size"),
        "max_length": config.get("max_position_embeddings"),
        "tied_embeddings": config.get("tie_word_embeddings"),
    }


_CLASSES = {kind: name for name, kind in _MODEL_TYPES.items()}


def _flat(rope: object) -> bool:
    """Tell whether a rope mapping holds plain values only, as the records of these families do."""
    return not isinstance(rope, Mapping) or all(isinstance(item, str | int | float | bool) for item in rope.values())


def hf_config_dtype(config: Mapping[str, Any], where: str = "config.json") -> str:
    """Return the weights' dtype named by a config.json content; raises UserError where there is none."""
    parts = (config, *(config[key] for key in NESTED if isinstance(config.get(key), Mapping)))
    named = [part.get(key) for part in parts for key in ("dtype", "torch_dtype") if part.get(key)]
    dtype = named[0] if named else "bfloat16" if _own_quantization(config) else None
    if dtype not in WEIGHT_DTYPES:
        raise UserError(f"{where}: names no usable dtype (found {dtype!r}); give one of {', '.join(WEIGHT_DTYPES)}")
    return str(dtype)


def _opt_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "family": "opt",
        "ffn_size": config.get("ffn_dim"),
        "activation": config.get("activation_function"),
        "word_embed_proj_dim": config.get("word_embed_proj_dim"),
    }


def _llama_fields(config: Mapping[str, Any], kind: str, where: str) -> dict[str, Any]:
    for name in ("rope_parameters", "rope_scaling"):
        if not isinstance(config.get(name) or {}, Mapping):
            raise UserError(f"{where}: {name} is {config[name]!r}, but must be a mapping")
    rope = dict(config.get("rope_parameters") or {})
    scaling = dict(config.get("rope_scaling") or rope)
    theta = config.get("rope_theta") or rope.get("rope_theta")
    scaling.pop("rope_theta", None)
    if "type" in scaling:
        scaling.setdefault("rope_type", scaling.pop("type"))
    window = config.get("sliding_window") if kind == "mistral" else None
    return {
        "family": "llama",
        "kv_heads": config.get("num_key_value_heads"),
        "head_dim": config.get("head_dim") if kind != "qwen2" else None,
        "ffn_size": config.get("intermediate_size"),
        "activation": config.get("hidden_act"),
        "qkv_bias": kind == "qwen2",
        "sliding_window": window,
        "norm_epsilon": config.get("rms_norm_eps"),
        "rope_theta": theta,
        "rope_scaling": scaling if scaling.get("rope_type", "default") != "default" else None,
    }
