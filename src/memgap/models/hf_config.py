"""Translation between a ModelArchitecture and a Hugging Face config.json."""

from collections.abc import Mapping
from typing import Any

from memgap.errors import UserError
from memgap.models.architecture import WEIGHT_DTYPES, ModelArchitecture
from memgap.models.fields import suggest

_MODEL_TYPES = {
    "OPTForCausalLM": "opt",
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "Qwen2ForCausalLM": "qwen2",
}


def to_hf_config(architecture: ModelArchitecture, dtype: str) -> dict[str, Any]:
    """Return the config.json content of a model of this shape whose weights are `dtype`."""
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


def from_hf_config(config: object, where: str = "config.json") -> ModelArchitecture:
    """Return the architecture that a config.json content describes.

    Raises UserError for a model type that is not modelled here, for features whose bytes would be counted
    wrongly (quantised weights, extra biases), and for missing or inconsistent values.
    """
    if not isinstance(config, Mapping):
        raise UserError(f"{where}: must hold a JSON object")
    kind = config.get("model_type")
    if kind not in _MODEL_TYPES.values():
        raise UserError(
            f"{where}: model_type {kind!r} is not supported ({suggest(str(kind), list(_MODEL_TYPES.values()))})"
        )
    if config.get("quantization_config") is not None:
        raise UserError(f"{where}: quantised weights (quantization_config) are not supported")
    shared = {
        "hidden_size": config.get("hidden_size"),
        "layers": config.get("num_hidden_layers"),
        "heads": config.get("num_attention_heads"),
        "vocabulary_size": config.get("vocab_size"),
        "max_length": config.get("max_position_embeddings"),
        "tied_embeddings": config.get("tie_word_embeddings"),
    }
    values = shared | (_opt_fields(config, where) if kind == "opt" else _llama_fields(config, str(kind), where))
    return ModelArchitecture.from_dict(values, where)


def hf_config_dtype(config: Mapping[str, Any], where: str = "config.json") -> str:
    """Return the weights' dtype named by a config.json content; raises UserError where there is none."""
    dtype = config.get("dtype") or config.get("torch_dtype")
    if dtype not in WEIGHT_DTYPES:
        raise UserError(f"{where}: names no usable dtype (found {dtype!r}); give one of {', '.join(WEIGHT_DTYPES)}")
    return str(dtype)


def _opt_fields(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    if config.get("do_layer_norm_before") is False:
        raise UserError(f"{where}: OPT models with do_layer_norm_before false are not supported")
    if config.get("enable_bias") is False or config.get("layer_norm_elementwise_affine") is False:
        raise UserError(f"{where}: OPT models without biases or without layer-norm weights are not supported")
    return {
        "family": "opt",
        "ffn_size": config.get("ffn_dim"),
        "activation": config.get("activation_function"),
        "word_embed_proj_dim": config.get("word_embed_proj_dim"),
    }


def _llama_fields(config: Mapping[str, Any], kind: str, where: str) -> dict[str, Any]:
    if config.get("attention_bias") or config.get("mlp_bias"):
        raise UserError(f"{where}: Llama models with attention_bias or mlp_bias are not supported")
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
    if kind == "qwen2" and config.get("use_sliding_window"):
        raise UserError(f"{where}: Qwen2 models with use_sliding_window true are not supported")
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
