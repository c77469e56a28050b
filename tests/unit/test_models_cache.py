"""What a token takes in caches of all types, by hand, and what follows for pools and steps."""

import dataclasses
from pathlib import Path

import pytest
import yaml

from memgap.config.load import check_config
from memgap.engine.adapters import adapter_for
from memgap.engine.held import held
from memgap.errors import UserError
from memgap.models import load_registry, resolve_model
from memgap.models.cache import CACHE_TYPES, cache_type
from memgap.models.hf_config import from_hf_config
from memgap.roofline.gpus import find_gpu
from memgap.roofline.parallel import Parallel
from memgap.roofline.predict import Setup, kv_capacity_tokens, largest_batch, predict_decode
from memgap.roofline.work import kv_write
from tests.support.records import small_config

LLAMA = load_registry()["llama-3.1-8b"].architecture
DATA = yaml.safe_load((Path(__file__).parent / "data" / "architectures.yaml").read_text(encoding="utf-8"))
EACH = {
    # a head's keys and values of 128 elements each
    "bfloat16": 2 * 128 * 2,
    "fp8": 2 * 128,
    "fp8_e5m2": 2 * 128,
    "int8_per_token_head": 2 * (128 + 4),
    "fp8_per_token_head": 2 * (128 + 4),
    "int4_per_token_head": 2 * (64 + 4),
    "nvfp4": 2 * (64 + 8),
    "nvfp4_4over6": 2 * (64 + 8),
}


@pytest.mark.parametrize("name", EACH)
def test_scales_are_counted(name: str) -> None:
    assert LLAMA.kv_bytes_per_token(name) == 32 * 8 * EACH[name]
    assert kv_write(LLAMA, 10, name, "bfloat16").bytes == 10 * 8 * (EACH[name] + 2 * 128 * 2)
    flags = {"kv-cache-dtype": name}
    model = resolve_model("llama-3.1-8b", {"llama-3.1-8b": {"weights": "synthetic"}})
    assert held(model, adapter_for("vllm").flags, flags).kv_bytes_per_token == 32 * 8 * EACH[name]


@pytest.mark.parametrize("name", EACH)
def test_pools_and_steps_follow(name: str) -> None:
    plain = Setup(LLAMA, find_gpu("H200"), "bfloat16")
    rounded = dataclasses.replace(plain, kv_dtype=name)
    factor = EACH["bfloat16"] / EACH[name]
    assert kv_capacity_tokens(rounded) == pytest.approx(factor * kv_capacity_tokens(plain), rel=1e-3)
    assert largest_batch(rounded, 4096) == pytest.approx(factor * largest_batch(plain, 4096), rel=0.01)
    read = sum(one.count * one.required_bytes for one in rounded.decode(64, 4096) if one.name == "attention_decode")
    assert read == pytest.approx(64 * 4096 * 32 * 8 * EACH[name])
    assert predict_decode(rounded, 64, 4096).step_s <= predict_decode(plain, 64, 4096).step_s
    halves = dataclasses.replace(rounded, parallel=Parallel(tensor=2))
    assert halves.split.kv_bytes_per_token(LLAMA.decoder, cache_type(name)) == 32 * 4 * EACH[name]


def test_latent_caches_have_layouts_of_their_own() -> None:
    plain, picked = from_hf_config(DATA["deepseek-v3"]["config"]), from_hf_config(DATA["glm-5"]["config"])
    assert plain.kv_bytes_per_token("fp8") == 61 * 576, "one scale for all"
    assert plain.kv_bytes_per_token("fp8_ds_mla") == 61 * 656
    index = 128 + 4
    assert picked.kv_bytes_per_token("bfloat16") == 78 * (576 * 2 + index)
    assert picked.kv_bytes_per_token("fp8") == 78 * (656 + index), "where an indexer picks, FP8 has scales"
    assert picked.kv_bytes_per_token("nvfp4_ds_mla") == 78 * (352 + index)


def test_every_type_can_be_asked_for_and_others_are_one_sentence() -> None:
    prediction = {"models": ["opt-1.3b"], "gpus": ["H200"], "batch": [1], "context_tokens": 100}
    for name in CACHE_TYPES:
        check_config({**small_config(), "predictions": {"p": {**prediction, "kv_dtype": name}}})
    with pytest.raises(UserError, match="unknown type of KV cache 'turboquant_4bit_nc'"):
        cache_type("turboquant_4bit_nc")
    flags = {"kv-cache-dtype": "turboquant_4bit_nc"}
    model = resolve_model("llama-3.1-8b", {"llama-3.1-8b": {"weights": "synthetic"}})
    assert held(model, adapter_for("vllm").flags, flags).kv_bytes_per_token is None
