"""What a family's layers have beside what config.json says: norms, biases, gates. One row a model type.

The rows are facts about published model classes; `tests/engine/test_architectures.py` builds each of them with
transformers and compares.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

NORM_PARAMETERS: Mapping[str, int] = {"rms": 1, "layer": 2, "scale": 1, "none": 0}
"""Parameters of a norm an element: a scale, a scale and a shift, none."""


@dataclass(frozen=True)
class Traits:
    """Traits of one model type; the defaults are Llama's.

    A bias is true, false, or the key that says so. `qk_norm` is a norm of each head's width ("head", "head with
    shift"), of all heads' width ("width"), or none; where `qk_norm_key` is set that key, or its default, must be true
    for it. `gate` is an output gate of the attention: "query" (in the query projection), "own" (a matrix of its own).
    `learned_positions` adds a table of `max_length` + `position_offset` rows.
    """

    gated: bool = True
    norm: str = "rms"
    norms: int = 2
    qkv_bias: bool | str = "attention_bias"
    out_bias: bool | str = "attention_bias"
    ffn_bias: bool | str = "mlp_bias"
    head_bias: bool | str = False
    qk_norm: str = ""
    qk_norm_key: str = ""
    qk_norm_default: bool = False
    gate: str = ""
    learned_positions: bool = False
    position_offset: int = 0
    embedding_norm: bool = False
    final_norm: bool = True
    sinks: bool = False
    rotary: bool = True
    router_bias: bool = False
    expert_bias: bool = False
    window_every: int = 0
    tied: bool | None = None


LLAMA = Traits()
_GPT = Traits(
    gated=False, norm="layer", qkv_bias=True, out_bias=True, ffn_bias=True, learned_positions=True, rotary=False
)
_GEMMA2 = Traits(norms=4)
_DEEPSEEK = Traits(out_bias="attention_bias", qkv_bias="attention_bias")

TRAITS: Mapping[str, Traits] = {
    "llama": LLAMA,
    "mistral": replace(LLAMA, qkv_bias=False, out_bias=False, ffn_bias=False),
    "ministral": LLAMA,
    "ministral3": LLAMA,
    "qwen2": replace(LLAMA, qkv_bias=True, out_bias=False, ffn_bias=False),
    "mimo": replace(LLAMA, qkv_bias=True, out_bias=False, ffn_bias=False),
    "qwen3": replace(LLAMA, qk_norm="head"),
    "cwm": LLAMA,
    "hyperclovax": LLAMA,
    "smollm3": LLAMA,
    "helium": LLAMA,
    "nemotron-nas": LLAMA,
    "granite": LLAMA,
    "granite_swa": replace(LLAMA, sinks=True),
    "ernie4_5": replace(LLAMA, qkv_bias="use_bias", out_bias="use_bias", ffn_bias="use_bias"),
    "seed_oss": replace(LLAMA, out_bias="attention_out_bias"),
    "exaone": replace(LLAMA, qkv_bias=False, out_bias=False),
    "exaone4": replace(LLAMA, qk_norm="head"),
    "hunyuan_v1_dense": replace(LLAMA, qk_norm="head", qk_norm_key="use_qk_norm", qk_norm_default=True),
    "olmo": replace(LLAMA, norm="none"),
    "olmo2": replace(LLAMA, qk_norm="width"),
    "olmo3": replace(LLAMA, qk_norm="width"),
    "nanochat": replace(LLAMA, norm="none", gated=False),
    "arcee": replace(LLAMA, gated=False),
    "apertus": replace(LLAMA, gated=False, qk_norm="head"),
    "jais2": replace(LLAMA, gated=False, norm="layer"),
    "nemotron": replace(LLAMA, gated=False, norm="layer"),
    "glm": replace(LLAMA, out_bias=False),
    "glm4": replace(LLAMA, out_bias=False, norms=4),
    "chatglm": replace(
        LLAMA, qkv_bias="add_qkv_bias", out_bias="add_bias_linear", ffn_bias="add_bias_linear", tied=False
    ),
    "internlm2": replace(LLAMA, qkv_bias="bias", out_bias="bias", tied=False),
    "internlm3": replace(LLAMA, qkv_bias="qkv_bias", out_bias="bias", ffn_bias="bias", tied=False),
    "baichuan": replace(LLAMA, tied=False),
    "orion": replace(LLAMA, norm="layer", tied=False),
    "xverse": replace(LLAMA, tied=False),
    "minicpm": replace(LLAMA, tied=True),
    "phi3": replace(LLAMA, ffn_bias=False),
    "phi": replace(
        LLAMA,
        gated=False,
        norm="layer",
        norms=1,
        qkv_bias=True,
        out_bias=True,
        ffn_bias=True,
        head_bias=True,
        qk_norm="head with shift",
        qk_norm_key="qk_layernorm",
    ),
    "gemma": LLAMA,
    "gemma2": _GEMMA2,
    "vaultgemma": replace(LLAMA, norms=2),
    "gemma3n_text": replace(_GEMMA2, qk_norm="head", window_every=5, tied=True),
    "gemma3_text": replace(_GEMMA2, qk_norm="head", window_every=6),
    "cohere": replace(LLAMA, norm="scale", norms=1, qk_norm="width", qk_norm_key="use_qk_norm"),
    "cohere2": replace(LLAMA, norm="scale", norms=1, window_every=4),
    "stablelm": replace(
        LLAMA,
        norm="layer",
        qkv_bias="use_qkv_bias",
        out_bias=False,
        ffn_bias=False,
        qk_norm="width",
        qk_norm_key="qk_layernorm",
    ),
    "starcoder2": replace(
        LLAMA, gated=False, norm="layer", qkv_bias="use_bias", out_bias="use_bias", ffn_bias="use_bias"
    ),
    "persimmon": replace(
        LLAMA,
        gated=False,
        norm="layer",
        qkv_bias=True,
        out_bias=True,
        ffn_bias=True,
        qk_norm="head with shift",
        qk_norm_key="qk_layernorm",
    ),
    "gpt2": _GPT,
    "gpt_bigcode": _GPT,
    "gpt_neo": replace(_GPT, qkv_bias=False),
    "gptj": replace(
        _GPT, norms=1, qkv_bias=False, out_bias=False, learned_positions=False, rotary=True, head_bias=True
    ),
    "codegen": replace(
        _GPT, norms=1, qkv_bias=False, out_bias=False, learned_positions=False, rotary=True, head_bias=True
    ),
    "gpt_neox": replace(
        _GPT, learned_positions=False, rotary=True, qkv_bias="attention_bias", out_bias="attention_bias"
    ),
    "bloom": replace(_GPT, learned_positions=False, embedding_norm=True),
    "mpt": replace(_GPT, norm="scale", qkv_bias=False, out_bias=False, ffn_bias=False, learned_positions=False),
    "falcon": replace(_GPT, learned_positions=False, rotary=True, qkv_bias="bias", out_bias="bias", ffn_bias="bias"),
    "opt": replace(_GPT, position_offset=2),
    "bitnet": LLAMA,
    # mixtures of experts
    "mixtral": LLAMA,
    "qwen2_moe": replace(LLAMA, qkv_bias="qkv_bias", out_bias=False),
    "qwen3_moe": replace(LLAMA, qk_norm="head"),
    "olmoe": replace(LLAMA, qk_norm="width"),
    "flex_olmo": replace(LLAMA, qk_norm="width"),
    "granitemoe": LLAMA,
    "granitemoeshared": LLAMA,
    "phimoe": replace(LLAMA, norm="layer", head_bias="lm_head_bias"),
    "dbrx": replace(LLAMA, norm="scale", qkv_bias=False, out_bias=False, ffn_bias=False),
    "gpt_oss": replace(LLAMA, sinks=True, router_bias=True, expert_bias=True, window_every=2),
    "deepseek": _DEEPSEEK,
    "deepseek_v2": _DEEPSEEK,
    "deepseek_v3": _DEEPSEEK,
    "deepseek_v32": _DEEPSEEK,
    "kimi_k2": _DEEPSEEK,
    "axk1": _DEEPSEEK,
    "glm4_moe": replace(LLAMA, out_bias=False, qk_norm="head", qk_norm_key="use_qk_norm"),
    "glm4_moe_lite": _DEEPSEEK,
    "glm_moe_dsa": _DEEPSEEK,
    "minicpm3": _DEEPSEEK,
    "youtu": _DEEPSEEK,
    "dots1": replace(LLAMA, qk_norm="head"),
    "ernie4_5_moe": replace(LLAMA, qkv_bias="use_bias", out_bias="use_bias", ffn_bias="use_bias"),
    "exaone_moe": replace(LLAMA, qk_norm="head"),
    "hunyuan_v1_moe": replace(LLAMA, qk_norm="head"),
    "hy_v3": replace(LLAMA, qk_norm="head"),
    "llama4_text": LLAMA,
    "minimax_m2": replace(LLAMA, qk_norm="width", qk_norm_key="use_qk_norm", qk_norm_default=True),
    "mimo_v2_flash": LLAMA,
    "solar_open": LLAMA,
    "afmoe": replace(LLAMA, norms=4, qk_norm="head", gate="own"),
    "cohere2_moe": replace(LLAMA, norm="scale", norms=1, window_every=4),
    # layers of several kinds
    "qwen3_next": replace(LLAMA, qk_norm="head", gate="query"),
    "qwen3_5_text": replace(LLAMA, qk_norm="head", gate="query"),
    "qwen3_5_moe_text": replace(LLAMA, qk_norm="head", gate="query"),
    "olmo_hybrid": replace(LLAMA, qk_norm="width"),
    "jamba": LLAMA,
    "bamba": LLAMA,
    "granitemoehybrid": LLAMA,
    "falcon_h1": replace(LLAMA, ffn_bias="mlp_bias"),
    "nemotron_h": replace(LLAMA, gated=False, norms=1),
    "mamba": replace(LLAMA, norms=1),
    "falcon_mamba": replace(LLAMA, norms=1),
    "mamba2": replace(LLAMA, norms=1),
    "lfm2": replace(LLAMA, qk_norm="head"),
    "lfm2_moe": replace(LLAMA, qk_norm="head"),
    "recurrent_gemma": replace(LLAMA, out_bias=True, ffn_bias=True),
    "kimi_linear": _DEEPSEEK,
    "minimax": LLAMA,
    "gemma4_text": replace(_GEMMA2, qk_norm="head"),
}
"""Traits by `model_type`."""

_SAME: Mapping[str, str] = {
    "gemma3": "gemma3_text",
    "gemma3n": "gemma3n_text",
    "gemma4": "gemma4_text",
    "llama4": "llama4_text",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
    "qwen2_vl": "qwen2",
    "qwen2_vl_text": "qwen2",
    "qwen2_5_vl": "qwen2",
    "qwen2_5_vl_text": "qwen2",
    "qwen3_vl": "qwen3",
    "qwen3_vl_text": "qwen3",
    "qwen3_vl_moe": "qwen3_moe",
    "qwen3_vl_moe_text": "qwen3_moe",
    "mistral3": "mistral",
    "minimax_m1": "minimax",
    "minimax_text_01": "minimax",
    "RefinedWeb": "falcon",
    "RefinedWebModel": "falcon",
    "deepseek_mtp": "deepseek_v3",
}


def traits_of(kind: str) -> Traits | None:
    """Return the traits of a model type, None for one that is not known."""
    return TRAITS.get(_SAME.get(kind, kind))


def known_kinds() -> list[str]:
    """Return all model types that are known, sorted."""
    return sorted({*TRAITS, *_SAME})
