"""What a server's flags and its own words make of weights and cache; numbers by hand."""

from typing import Any

import pytest

from memgap.engine.adapters import adapter_for
from memgap.engine.held import held, held_of
from memgap.models import resolve_model

TOKEN = 2 * 32 * 8 * 128
"""Elements of a token's keys and values in Llama 3.1 8B."""


def record(flags: dict[str, Any], adapter: str = "vllm", **entry: Any) -> dict[str, Any]:
    model = resolve_model("m", {"m": {"base": "llama-3.1-8b", "weights": "synthetic", **entry}})
    return {"model": model, "engine": {"adapter": adapter}, "server": {"args": flags}}


@pytest.mark.parametrize(
    ("flags", "adapter", "element_bytes"),
    [
        ({}, "vllm", 2),
        ({"kv-cache-dtype": "auto"}, "vllm", 2),
        ({"kv-cache-dtype": "fp8"}, "vllm", 1),
        ({"kv-cache-dtype": "fp8_e5m2"}, "vllm", 1),
        ({"kv-cache-dtype": "fp8_e4m3"}, "sglang", 1),
        ({"kv-cache-dtype": "bfloat16"}, "vllm", 2),
        ({"quantization": "fp8"}, "vllm", 2),
        ({}, "hf", 2),
    ],
)
def test_the_caches_flag_counts(flags: dict[str, Any], adapter: str, element_bytes: int) -> None:
    assert held_of(record(flags, adapter)).kv_bytes_per_token == TOKEN * element_bytes


def test_the_checkpoint_counts_where_no_flag_is() -> None:
    quantization = {"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}
    assert held_of(record({}, quantization=quantization)).kv_bytes_per_token == TOKEN
    assert held_of(record({"kv-cache-dtype": "auto"}, quantization=quantization)).kv_bytes_per_token == TOKEN
    assert held_of(record({"kv-cache-dtype": "bfloat16"}, quantization=quantization)).kv_bytes_per_token == 2 * TOKEN


def test_what_the_server_says_goes_first() -> None:
    one = record({"kv-cache-dtype": "auto"})
    names = adapter_for("vllm").flags
    assert held(one["model"], names, one["server"]["args"], "fp8_e4m3").pool_bytes(1000) == 1000 * TOKEN
    assert held(one["model"], names, one["server"]["args"], "auto").pool_bytes(1000) == 2000 * TOKEN
    assert held(one["model"], names, one["server"]["args"], None).pool_bytes(None) is None


def test_a_cache_that_is_not_known_is_not_guessed() -> None:
    one = held_of(record({"kv-cache-dtype": "turbo3"}))
    assert (one.kv_bytes_per_token, one.pool_bytes(10)) == (None, None)


def test_weights_by_flag_and_by_checkpoint() -> None:
    plain, flagged = held_of(record({})), held_of(record({"quantization": "fp8"}))
    assert plain.weights_bytes == 2 * 8_030_261_248
    embeddings = 2 * 128256 * 4096
    assert flagged.weights_bytes == pytest.approx(8_030_261_248 + embeddings, rel=1e-4)
    assert held_of(record({}, quantization="fp8")).weights_bytes == flagged.weights_bytes
