"""Number formats of weights and of the KV cache, from all the places that name them."""

import json
from pathlib import Path
from typing import Any

import pytest

from memgap.canonical import canonical_json
from memgap.errors import UserError
from memgap.models import ModelArchitecture, load_registry, resolve_model
from memgap.models.formats import SHORT, fp8_block, int_group, matches, read_quantization
from memgap.models.hf_config import from_hf_config, to_hf_config

LLAMA = load_registry()["llama-3.1-8b"].architecture
GIB = 2**30
FP8_CACHE = {"num_bits": 8, "type": "float"}
LAYERS = 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336)
OUTSIDE = LLAMA.parameter_count() - LAYERS


def quantized(name: str, **changes: Any) -> ModelArchitecture:
    entry = {"base": "llama-3.1-8b", "weights": "synthetic", "quantization": name, **changes}
    return ModelArchitecture.from_dict(resolve_model("m", {"m": entry})["architecture"])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fp8", LAYERS + 32 * 7 * 4 - 32 * 3 * 4),  # a scale for each of the four products of a layer
        ("fp8-block", LAYERS * (1 + 4 / 128**2)),
        ("int8", LAYERS + 4 * 32 * (4096 + 2 * 1024 + 4096 + 2 * 14336 + 4096)),
        ("awq", LAYERS * (4 + (16 + 4) / 128) / 8),
        ("gptq", LAYERS * (4 + 16 / 128) / 8),
        ("nvfp4", LAYERS * (4 + 8 / 16) / 8),
    ],
)
def test_only_the_layers_products_are_rounded(name: str, expected: float) -> None:
    assert quantized(name).weight_bytes("bfloat16") == pytest.approx(expected + 2 * OUTSIDE, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "logged_gib"),
    [("fp8", 8.54), ("awq", 5.49)],
)
def test_weights_agree_with_what_vllm_logged_of_them(name: str, logged_gib: float) -> None:
    assert quantized(name).weight_bytes("bfloat16") / GIB == pytest.approx(logged_gib, rel=0.03)


def test_mxfp4_rounds_experts_only() -> None:
    oss = load_registry()["gpt-oss-120b"].architecture
    assert oss.weight_format == "mxfp4"
    assert oss.weight_bytes("bfloat16") == pytest.approx(65.25e9, rel=0.001)  # the checkpoint's files
    dense = [one.format for block in oss.decoder.blocks for one in block.matrices]
    assert set(dense) == {None}


def test_a_folder_says_its_format_beside_config_json(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(to_hf_config(LLAMA, "bfloat16")))
    plain = resolve_model("m", {"m": {"path": str(tmp_path)}})["architecture"]
    assert "quantization" not in plain
    quant = {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]}
    (tmp_path / "hf_quant_config.json").write_text(
        json.dumps({"producer": {"name": "modelopt"}, "quantization": quant})
    )
    model = ModelArchitecture.from_dict(resolve_model("m", {"m": {"path": str(tmp_path)}})["architecture"])
    assert model.weight_bytes("bfloat16") == pytest.approx(LAYERS + 2 * OUTSIDE, rel=1e-6)
    assert model.kv_dtype("bfloat16") == "fp8"
    assert model.kv_dtype("bfloat16", "auto") == "fp8"
    assert model.kv_dtype("bfloat16", "fp8_e5m2") == "fp8_e5m2"
    with pytest.raises(UserError, match="own files name the format"):
        resolve_model("m", {"m": {"path": str(tmp_path), "quantization": "awq"}})
    (tmp_path / "hf_quant_config.json").unlink()
    (tmp_path / "quantize_config.json").write_text(
        json.dumps({"bits": 4, "group_size": 128, "desc_act": True, "sym": True})
    )
    early = ModelArchitecture.from_dict(resolve_model("m", {"m": {"path": str(tmp_path)}})["architecture"])
    assert (early.weight_format, early.kv_dtype("float16")) == ("gptq-int4-g128", "float16")


def test_a_servers_flag_rounds_a_16_bit_checkpoint_only() -> None:
    assert LLAMA.served_as("fp8").weight_bytes("bfloat16") == quantized("fp8").weight_bytes("bfloat16")
    assert quantized("awq").served_as("awq_marlin").weight_bytes("float16") == quantized("awq").weight_bytes("float16")
    assert LLAMA.served_as("unheard-of").weight_bytes("bfloat16") == LLAMA.weight_bytes("bfloat16")
    assert LLAMA.served_as(None) is LLAMA


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        ({"num_bits": 8, "type": "float"}, "fp8"),
        (None, "bfloat16"),
        ("FP8", "fp8"),
    ],
)
def test_the_cache_that_a_checkpoint_names(scheme: object, expected: str) -> None:
    content = dict(SHORT["int8"]) | {"kv_cache_scheme": scheme}
    config = to_hf_config(LLAMA, "bfloat16") | {"quantization_config": content}
    assert from_hf_config(config).kv_dtype("bfloat16") == expected


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("lm_head", "lm_head", True),
        ("model.layers.*.self_attn", "layers.3.self_attn.q_proj", True),
        ("model.layers.*.self_attn", "layers.3.mlp.gate", False),
        ("model.layers.1.mlp.gate", "layers.11.mlp.gate", False),
        ("language_model.model.layers.1.self_attn*", "layers.1.self_attn.o_proj", True),
        ("model.layers.0*", "layers.0.mlp.down_proj", True),
        ("gate", "layers.4.block_sparse_moe.gate", True),
        ("gate", "layers.4.mlp.gate_proj", False),
        ("*.mlp.shared_expert.*", "layers.2.mlp.shared_expert.up_proj", True),
        ("re:.*self_attn.*", "layers.7.self_attn.kv_b_proj", True),
        ("re:(", "layers.7.self_attn.kv_b_proj", False),
        ("model.layers.3.mlp.down_proj.weight", "layers.3.mlp.down_proj", True),
    ],
)
def test_names_of_what_stays_in_16_bits(pattern: str, name: str, expected: bool) -> None:
    assert matches(pattern, name) is expected


def test_layers_of_a_mixed_checkpoint_have_their_own_formats() -> None:
    layers = {
        "model.layers.0.mlp.down_proj": {"quant_algo": "FP8"},
        "model.layers.1.mlp.down_proj": {"quant_algo": "NVFP4", "group_size": 16},
    }
    content = {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": layers}
    config = to_hf_config(LLAMA, "bfloat16") | {"quantization_config": content}
    shape = from_hf_config(config)
    down = 4096 * 14336
    saved = LLAMA.weight_bytes("bfloat16") - shape.weight_bytes("bfloat16")
    assert saved == pytest.approx(down * (2 - 1) + down * (2 - 4.5 / 8), rel=1e-6)
    assert sorted(one.count for one in shape.decoder.blocks) == [1, 1, 30]


def test_scales_count() -> None:
    assert fp8_block(128, 128).bytes_of(256, 300) == 256 * 300 + 2 * 3 * 4
    assert int_group(4, 128, True).bytes_of(2, 256) == 2 * 256 / 2 + 2 * 2 * 20 / 8
    assert int_group(8, -1, False).bytes_of(10, 64) == 640 + 20


def test_a_record_of_16_bits_has_no_word_of_formats() -> None:
    model = resolve_model("opt-1.3b")
    assert "quantization" not in canonical_json(model)
    assert "config" not in model["architecture"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("fp9", ["'fp9'", "did you mean fp8"]),
        ({"method": "awq", "group": 64, "colour": 1}, ["colour"]),
        ({"method": "magic"}, ["'magic'"]),
        (4, ["got 4"]),
        ({"quant_method": "compressed-tensors"}, ["config_groups is missing"]),
        ({"quant_method": "modelopt", "quant_algo": "FP2"}, ["quant_algo is 'FP2'"]),
        ({"quant_method": "fp8", "weight_block_size": [128]}, ["weight_block_size"]),
    ],
)
def test_formats_that_are_not_known_are_one_sentence(given: object, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        resolve_model("m", {"m": {"base": "tiny-llama", "quantization": given}})
    message = str(caught.value)
    assert message.startswith("models.m.quantization")
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_short_mapping_says_group_and_method() -> None:
    model = resolve_model("m", {"m": {"base": "tiny-llama", "quantization": {"method": "awq", "group": 64}}})
    assert model["architecture"]["quantization"]["group_size"] == 64
    assert read_quantization(model["architecture"]["quantization"], "x").summary == "awq-int4-g64"


@pytest.mark.parametrize(
    ("said", "same_as"),
    [
        ({"quant_method": "awq", "w_bit": 8, "q_group_size": 64}, {"quant_method": "awq", "bits": 8, "group_size": 64}),
        ({"quant_method": "gptq", "bits": 4.0, "group_size": 128.0}, {"quant_method": "gptq", "bits": 4}),
        ({"quant_method": "bitsandbytes", "load_in_4bit": False, "load_in_8bit": False}, None),
        ({"quant_method": "compressed-tensors", "config_groups": {}, "kv_cache_scheme": FP8_CACHE}, None),
        ({"quant_method": "compressed-tensors", "kv_cache_scheme": FP8_CACHE}, None),
    ],
)
def test_other_ways_to_say_the_same(said: dict[str, Any], same_as: dict[str, Any] | None) -> None:
    config = to_hf_config(LLAMA, "bfloat16")
    found = from_hf_config({**config, "quantization_config": said}, "here")
    expected = from_hf_config({**config, "quantization_config": same_as}, "here")
    assert found.weight_bytes("bfloat16") == expected.weight_bytes("bfloat16")
    assert found.checkpoint_kv_dtype == ("fp8" if "kv_cache_scheme" in said else None)
