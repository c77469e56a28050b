"""A hundred real architectures by the keys of their config.json, against their published sizes."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from memgap.errors import UserError
from memgap.models import ModelArchitecture, load_registry, resolve_model
from memgap.models.cache import CacheType
from memgap.models.hf_config import from_hf_config, to_hf_config

DATA = yaml.safe_load((Path(__file__).parent / "data" / "architectures.yaml").read_text(encoding="utf-8"))
KV_BYTES = {
    # two bytes an element x (keys and values) x layers x KV heads x width, by hand
    "llama-3.1-70b": 2 * 2 * 80 * 8 * 128,
    "qwen3-0.6b": 2 * 2 * 28 * 8 * 128,
    "qwen3-30b-a3b": 2 * 2 * 48 * 4 * 128,
    "gemma-2b": 2 * 2 * 18 * 1 * 256,
    "gemma-3-27b": 2 * 2 * 62 * 16 * 128,
    "gpt-oss-120b": 2 * 2 * 36 * 8 * 64,
    "falcon-7b": 2 * 2 * 32 * 1 * 64,
    "falcon-40b": 2 * 2 * 60 * 8 * 64,
    "starcoder-15b": 2 * 2 * 40 * 1 * 128,
    "mpt-7b": 2 * 2 * 32 * 32 * 128,
    "dbrx-132b": 2 * 2 * 40 * 8 * 128,
    "gpt2-xl": 2 * 2 * 48 * 25 * 64,
    "bloom-176b": 2 * 2 * 70 * 112 * 128,
    "opt-350m": 2 * 2 * 24 * 16 * 64,
    "deepseek-v2-lite": 2 * 27 * (512 + 64),
    "deepseek-v3": 2 * 61 * (512 + 64),
    "minicpm3-4b": 2 * 62 * (256 + 32),
    "jamba-v0.1": 2 * 2 * 4 * 8 * 128,
    "qwen3-next-80b-a3b": 2 * 2 * 12 * 2 * 256,
    "nemotron-3-nano-30b-a3b": 2 * 2 * 6 * 2 * 128,
    "recurrentgemma-2b": 2 * 2 * 8 * 1 * 256,
    "kimi-linear-48b-a3b": 2 * 7 * (512 + 64),
    "minimax-text-01": 2 * 2 * 10 * 8 * 128,
    "falcon-mamba-7b": 0,
}


def read(name: str) -> ModelArchitecture:
    return from_hf_config(DATA[name]["config"], name)


@pytest.mark.parametrize("name", DATA)
def test_parameters_are_the_published_ones(name: str) -> None:
    assert read(name).parameter_count() == pytest.approx(DATA[name]["parameters"], rel=1e-4)


def test_nearly_all_are_exact() -> None:
    exact = [name for name in DATA if read(name).parameter_count() == DATA[name]["parameters"]]
    assert len(DATA) >= 100
    assert len(exact) >= 94


@pytest.mark.parametrize("name", KV_BYTES)
def test_bytes_of_the_cache_a_token(name: str) -> None:
    assert read(name).kv_bytes_per_token("bfloat16") == KV_BYTES[name]
    assert read(name).kv_bytes_per_token("fp8") == KV_BYTES[name] / 2


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("mixtral-8x7b", 12.9),
        ("qwen3-30b-a3b", 3.3),
        ("qwen3-235b-a22b", 22.2),
        ("gpt-oss-20b", 3.6 + 0.58),  # OpenAI counts the head's embedding once
        ("gpt-oss-120b", 5.1 + 0.58),
        ("deepseek-v3", 37.5),
        ("llama-4-maverick", 17.2 + 0.9),  # Meta's 17 B leave the vision tower out
        ("kimi-k2", 32.9),
    ],
)
def test_a_token_meets_the_published_share_of_the_experts(name: str, billions: float) -> None:
    assert read(name).decoder.active_parameters() / 1e9 == pytest.approx(billions, rel=0.03)


def test_fixed_state_of_layers_without_attention() -> None:
    # Qwen3-Next: 36 layers x 32 heads x 128 x 128 in 32 bits, and three inputs of a convolution of 8,192 in 16
    assert read("qwen3-next-80b-a3b").decoder.state_bytes(2) == 36 * (32 * 128 * 128 * 4 + 3 * 8192 * 2)
    assert read("llama-3.2-1b").decoder.state_bytes(2) == 0
    assert [one.state.kind for one in read("jamba-v0.1").decoder.blocks if one.state] == ["mamba", "mamba"]


def test_windows_alternate() -> None:
    blocks = read("gemma-3-1b").decoder.blocks
    assert {(one.count, one.attention.window) for one in blocks if one.attention} == {(22, 512), (4, None)}
    oss = read("gpt-oss-20b").decoder
    assert {(one.count, one.attention.window) for one in oss.blocks if one.attention} == {(12, 128), (12, None)}
    long = oss.kv_bytes_of_sequence(10000, CacheType(2))
    assert long == 12 * 2 * 8 * 64 * 2 * (10000 + 128)


@pytest.mark.parametrize("name", DATA)
def test_the_same_config_comes_back(name: str) -> None:
    architecture = read(name)
    assert ModelArchitecture.from_dict(architecture.to_dict()) == architecture
    again = from_hf_config(to_hf_config(architecture, "bfloat16"), name)
    assert again.parameter_count() == architecture.parameter_count()
    assert again.kv_bytes_per_token("bfloat16") == architecture.kv_bytes_per_token("bfloat16")


def test_layers_of_a_searched_plan_differ() -> None:
    whole = {"attention": {"n_heads_in_group": 8}, "ffn": {"ffn_mult": 5.25}}
    small = {"attention": {"n_heads_in_group": 16, "no_op": False}, "ffn": {"ffn_mult": 1.3125, "no_op": False}}
    halves = [{"attention": {"no_op": True}, "ffn": {"ffn_mult": 2.625}}, {**whole, "ffn": {"no_op": True}}]
    mapped = {"attention": {"replace_with_linear": True}, "ffn": {"replace_with_linear": True}}
    config = {**DATA["llama-3.1-70b"]["config"], "model_type": "nemotron-nas", "num_hidden_layers": 6}
    config |= {"num_key_value_heads": None, "intermediate_size": None}
    found = from_hf_config({**config, "block_configs": [whole, whole, small, *halves, mapped]})
    hidden, head, widths = 8192, 128, {5.25: 28672, 2.625: 14336, 1.3125: 7168}  # 28,672 is Llama's own
    attention = {group: 2 * hidden * hidden + 2 * hidden * head * 64 // group for group in (8, 16)}
    ffn = {share: 3 * hidden * width for share, width in widths.items()}
    layers = 3 * attention[8] + attention[16] + 2 * ffn[5.25] + ffn[1.3125] + ffn[2.625] + 2 * hidden * hidden
    norms = (2 + 2 + 2 + 1 + 1 + 2 + 1) * hidden
    assert found.parameter_count() == 2 * 128256 * hidden + layers + norms
    assert found.kv_bytes_per_token("bfloat16") == (3 * 8 + 4) * 2 * head * 2
    assert ModelArchitecture.from_dict(found.to_dict()) == found


def test_alternating_updates_are_counted() -> None:
    config = {
        "model_type": "gemma3n",
        "architectures": ["Gemma3nForConditionalGeneration"],
        "vision_config": {"model_type": "gemma3n_vision"},
        "text_config": {
            "model_type": "gemma3n_text",
            "hidden_size": 2048,
            "intermediate_size": [16384] * 35,
            "head_dim": 256,
            "num_hidden_layers": 35,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "vocab_size": 262400,
            "max_position_embeddings": 32768,
            "sliding_window": 512,
            "num_kv_shared_layers": 15,
            "laurel_rank": 64,
            "vocab_size_per_layer_input": 262144,
            "hidden_size_per_layer_input": 256,
            "altup_num_inputs": 4,
        },
    }
    found = from_hf_config(config)
    assert found.parameter_count() == 6_835_235_568, "as transformers builds Gemma 3n E4B without its towers"
    assert found.decoder.uncounted == ("vision_config",)
    assert found.kv_bytes_per_token("bfloat16") == 20 * 2 * 2 * 256 * 2, "the last 15 layers read those of others"


def test_bookkeeping_makes_no_other_point() -> None:
    config = DATA["qwen3-8b"]["config"]
    noisy = {**config, "transformers_version": "4.51.0", "torch_dtype": "bfloat16", "use_cache": True, "label2id": {}}
    assert from_hf_config(noisy).to_dict() == from_hf_config(config).to_dict()


def test_a_model_type_that_is_not_known_is_read_by_its_keys() -> None:
    config = {**DATA["llama-3.2-3b"]["config"], "model_type": "brandnew", "hidden_act": "silu", "rope_theta": 5e5}
    assert from_hf_config(config).parameter_count() == DATA["llama-3.2-3b"]["parameters"]
    moe = {**DATA["mixtral-8x7b"]["config"], "model_type": "brandnew_moe", "hidden_act": "silu"}
    assert from_hf_config(moe).parameter_count() == DATA["mixtral-8x7b"]["parameters"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "bert", "hidden_act": "gelu"}, ["'bert'", "hidden_act 'gelu'"]),
        ({"model_type": "t5", "is_encoder_decoder": True}, ["is_encoder_decoder"]),
        ({"model_type": "brandnew", "d_conv": 4}, ["'brandnew'", "d_conv"]),
        ({"model_type": "brandnew", "altup_num_inputs": 4}, ["altup_num_inputs"]),
        ({"model_type": "nemotron-nas", "block_configs": [{"ffn": {}}]}, ["layer 1", "block_configs", "attention"]),
        ({"model_type": None}, ["model_type is missing"]),
        ({"hidden_size": "wide"}, ["hidden_size is 'wide'", "whole number"]),
        ({"num_hidden_layers": None}, ["num_hidden_layers is missing"]),
        ({"num_key_value_heads": 7}, ["num_attention_heads 64", "num_key_value_heads 7"]),
        ({"layer_types": ["spiral"] * 64}, ["layer_types", "'spiral'"]),
        ({"layer_types": ["full_attention"]}, ["layer_types has 1 entries for 64 layers"]),
        ({"tie_word_embeddings": "no"}, ["tie_word_embeddings is 'no'", "true or false"]),
        ({"quantization_config": {"quant_method": "exl3"}}, ["quant_method 'exl3'"]),
        ({"quantization_config": {"bits": "four", "quant_method": "gptq"}}, ["bits is 'four'"]),
    ],
)
def test_what_is_not_described_is_refused_by_its_key(change: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        from_hf_config({**DATA["qwen3-32b"]["config"], **change}, "config.json")
    message = str(caught.value)
    assert message.startswith("config.json: ")
    assert "\n" not in message
    for word in words:
        assert word in message


def test_the_registry_has_the_models_that_everybody_measures() -> None:
    table = [
        *(f"smollm2-{size}-instruct" for size in ("135m", "360m", "1.7b")),
        *(f"qwen3-{size}" for size in ("0.6b", "1.7b", "4b", "8b", "14b", "32b")),
        *(f"gemma-3-{size}-it" for size in ("270m", "1b", "4b", "12b", "27b")),
        *("gpt-oss-20b", "gpt-oss-120b", "qwen3-30b-a3b-thinking-2507", "qwen3-next-80b-a3b-thinking"),
        *("llama-3.1-8b", "llama-3.1-70b", "mixtral-8x7b", "deepseek-v3", "qwen3-30b-a3b"),
    ]
    assert set(table) <= set(load_registry())
    for name in table:
        architecture = load_registry()[name].architecture
        twin = next((key for key in DATA if name.removesuffix("-it").removesuffix("-instruct") == key), None)
        if twin is not None:
            assert architecture.parameter_count() == pytest.approx(DATA[twin]["parameters"], rel=1e-4)


def test_a_registry_model_is_made_smaller_by_its_layers() -> None:
    small = resolve_model("small", {"small": {"base": "mixtral-8x7b", "architecture": {"layers": 6}}})
    architecture = ModelArchitecture.from_dict(small["architecture"])
    assert architecture.layers == 6
    whole = load_registry()["mixtral-8x7b"].architecture
    assert whole.parameter_count() - architecture.parameter_count() == 26 * 1_451_270_144
    gemma = resolve_model("g", {"g": {"base": "gemma-3-4b-it", "architecture": {"layers": 7}}})
    assert ModelArchitecture.from_dict(gemma["architecture"]).layers == 7
