"""Shapes of models and the bytes that follow, against sizes known from elsewhere."""

from typing import Any

import pytest

from memgap.errors import UserError
from memgap.models import ModelArchitecture, dtype_bytes, load_registry
from memgap.models.hf_config import from_hf_config, hf_config_dtype, to_hf_config

GIB = 2**30
MIB = 2**20

OPT: dict[str, Any] = {
    "family": "opt",
    "layers": 2,
    "hidden_size": 64,
    "heads": 4,
    "ffn_size": 128,
    "vocabulary_size": 100,
    "max_length": 32,
}
LLAMA: dict[str, Any] = OPT | {"family": "llama", "kv_heads": 2}


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("opt-125m", 125_239_296),
        ("opt-1.3b", 1_315_758_080),
        ("opt-2.7b", 2_651_596_800),
        ("opt-6.7b", 6_658_473_984),
        ("llama-2-7b", 6_738_415_616),
        ("llama-2-13b", 13_015_864_320),
        ("llama-3-8b", 8_030_261_248),
        ("llama-3.1-8b", 8_030_261_248),
        ("qwen2.5-7b", 7_615_616_512),
        ("mistral-7b-v0.1", 7_241_732_096),
    ],
)
def test_parameter_counts_are_those_of_the_published_models(name: str, parameters: int) -> None:
    assert load_registry()[name].architecture.parameter_count() == parameters


@pytest.mark.parametrize(
    ("name", "logged_gib"),
    [("opt-1.3b", 2.4509), ("opt-2.7b", 4.9551), ("llama-2-7b", 12.5523), ("llama-2-13b", 24.2840)],
)
def test_weights_agree_with_what_vllm_logged(name: str, logged_gib: float) -> None:
    assert load_registry()[name].architecture.weight_bytes("float16") / GIB == pytest.approx(logged_gib, rel=0.01)


@pytest.mark.parametrize(
    ("name", "block_mib"), [("opt-1.3b", 3.0), ("opt-2.7b", 5.0), ("llama-2-7b", 8.0), ("llama-2-13b", 12.5)]
)
def test_a_block_of_sixteen_tokens_has_the_known_size(name: str, block_mib: float) -> None:
    assert load_registry()[name].architecture.kv_bytes_per_token("float16") * 16 == block_mib * MIB


def test_grouped_attention_and_small_types_shrink_the_cache() -> None:
    full = ModelArchitecture.from_dict(LLAMA | {"kv_heads": 4})
    grouped = ModelArchitecture.from_dict(LLAMA | {"kv_heads": 1})
    assert full.kv_bytes_per_token("float16") == 2 * 2 * 64 * 2
    assert grouped.kv_bytes_per_token("float16") * 4 == full.kv_bytes_per_token("float16")
    assert full.kv_bytes_per_token("fp8") * 2 == full.kv_bytes_per_token("float16")
    assert full.weight_bytes("float32") == 2 * full.weight_bytes("bfloat16")


def test_projected_opt_embeddings_are_counted() -> None:
    plain = ModelArchitecture.from_dict(OPT)
    projected = ModelArchitecture.from_dict(OPT | {"word_embed_proj_dim": 32})
    assert projected.parameter_count() - plain.parameter_count() == -100 * 32 + 2 * 32 * 64


def test_untied_embeddings_count_twice() -> None:
    untied = ModelArchitecture.from_dict(LLAMA)
    tied = ModelArchitecture.from_dict(LLAMA | {"tied_embeddings": True})
    assert untied.parameter_count() - tied.parameter_count() == 100 * 64


@pytest.mark.parametrize("name", sorted(load_registry()))
def test_dict_and_hf_config_give_the_same_architecture_back(name: str) -> None:
    architecture = load_registry()[name].architecture
    assert ModelArchitecture.from_dict(architecture.to_dict()) == architecture
    config = to_hf_config(architecture, "float16")
    assert from_hf_config(config) == architecture
    assert hf_config_dtype(config) == "float16"


def test_newer_rope_parameters_are_read() -> None:
    architecture = load_registry()["llama-3.1-8b"].architecture
    config = to_hf_config(architecture, "bfloat16")
    config["rope_parameters"] = {**config.pop("rope_scaling"), "rope_theta": config.pop("rope_theta")}
    assert from_hf_config(config) == architecture


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (OPT | {"family": "gpt"}, ["family", "'gpt'", "llama, opt"]),
        (OPT | {"layer": 2}, ["'layer'", "did you mean layers"]),
        ({name: value for name, value in OPT.items() if name != "ffn_size"}, ["ffn_size is missing"]),
        (OPT | {"layers": 0}, ["layers", "at least 1"]),
        (OPT | {"layers": "2"}, ["layers is '2'", "whole number"]),
        (OPT | {"layers": True}, ["layers is True"]),
        (OPT | {"layers": 1.5}, ["layers is 1.5"]),
        (OPT | {"heads": 5}, ["hidden_size 64", "heads 5"]),
        (LLAMA | {"kv_heads": 3}, ["heads 4", "kv_heads 3"]),
        (OPT | {"kv_heads": 2}, ["kv_heads is 2", "no grouped attention"]),
        (OPT | {"head_dim": 8}, ["head_dim 8", "hidden_size 64"]),
        (OPT | {"rope_theta": 1000.0}, ["rope_theta", "absent for OPT"]),
        (LLAMA | {"head_dim": 7}, ["head_dim 7", "odd"]),
        (LLAMA | {"head_dim": 32, "qkv_bias": True}, ["head_dim 32"]),
        (LLAMA | {"qkv_bias": True, "sliding_window": 16}, ["sliding_window"]),
        (LLAMA | {"word_embed_proj_dim": 32}, ["word_embed_proj_dim"]),
        (LLAMA | {"position_offset": 2}, ["position_offset"]),
        (LLAMA | {"rope_scaling": {"factor": 2.0}}, ["rope_scaling", "rope_type"]),
        (LLAMA | {"norm_epsilon": float("nan")}, ["norm_epsilon"]),
        (LLAMA | {"tied_embeddings": "yes"}, ["tied_embeddings", "true or false"]),
        (["opt"], ["must be a mapping"]),
    ],
)
def test_bad_architectures_are_refused_in_one_sentence(values: object, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        ModelArchitecture.from_dict(values, "models.mine")
    message = str(caught.value)
    assert message.startswith("models.mine: ")
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "llam", "kv_channel_groups": 4}, "kv_channel_groups.*did you mean llama"),
        ({"model_type": None}, "model_type is missing"),
        ({"quantization_config": {"bits": 0.5}}, "bits is 0.5"),
        ({"hidden_size": None}, "hidden_size is missing"),
    ],
)
def test_unsupported_hf_configs_are_refused(change: dict[str, Any], words: str) -> None:
    config = to_hf_config(ModelArchitecture.from_dict(LLAMA), "float16") | change
    with pytest.raises(UserError, match=words):
        from_hf_config(config)


def test_biases_of_llama_are_counted() -> None:
    config = to_hf_config(ModelArchitecture.from_dict(LLAMA), "float16")
    plain, biased = from_hf_config(config), from_hf_config(config | {"attention_bias": True})
    assert (plain.family, biased.family) == ("llama", "decoder")
    assert biased.parameter_count() - plain.parameter_count() == 2 * (64 + 2 * 32 + 64)


def test_post_norm_opt_has_no_last_norm() -> None:
    config = to_hf_config(ModelArchitecture.from_dict(OPT), "float16")
    before, after = from_hf_config(config), from_hf_config(config | {"do_layer_norm_before": False})
    assert before.parameter_count() - after.parameter_count() == 2 * 64


def test_unknown_dtypes_are_refused() -> None:
    with pytest.raises(UserError, match="'int3'"):
        dtype_bytes("int3")
    with pytest.raises(UserError, match="dtype"):
        hf_config_dtype({"torch_dtype": "int8"})
