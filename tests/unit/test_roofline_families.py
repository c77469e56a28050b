"""Work of mixtures, latent attention, rounded weights and several GPUs, against values computed by hand."""

import dataclasses
from typing import Any

import pytest

from memgap.errors import UserError
from memgap.models import ModelArchitecture, load_registry, resolve_model
from memgap.models.hf_config import from_hf_config
from memgap.roofline.gpus import GIB, find_gpu
from memgap.roofline.parallel import Parallel
from memgap.roofline.predict import Setup, kv_capacity_tokens, largest_batch, leaves_memory_roof_at, predict_decode
from memgap.roofline.predictions import planned_predictions
from memgap.roofline.work import Kernel, decode_step, main_peak, model_flop, prefill_step, step_kernels, total

H200 = find_gpu("H200")
MIXTRAL = load_registry()["mixtral-8x7b"].architecture
DEEPSEEK = load_registry()["deepseek-v3"].architecture
LLAMA = load_registry()["llama-3.1-8b"].architecture
EXPERT = 3 * 4096 * 14336


def named(kernels: list[Kernel], name: str) -> Kernel:
    return next(one for one in kernels if one.name == name)


def rounded(base: str, quantization: str) -> ModelArchitecture:
    entry = {"base": base, "weights": "synthetic", "quantization": quantization}
    return ModelArchitecture.from_dict(resolve_model("m", {"m": entry})["architecture"])


@pytest.mark.parametrize("name", sorted(load_registry()))
def test_one_token_reads_what_it_meets(name: str) -> None:
    shape = load_registry()[name].architecture
    kernels = decode_step(shape, 1, 10, "bfloat16")
    read = sum(one.count * one.required_bytes for one in kernels if one.kernel_class == "matmul")
    assert 0.8 < read / shape.weight_bytes("bfloat16") <= 1.0 or "a3b" in name or shape.decoder.blocks[-1].experts
    flop = total(kernels).flop
    assert flop == pytest.approx(model_flop(shape, 1, 10), rel=0.3)


def test_a_batch_touches_the_experts_that_its_tokens_choose() -> None:
    one, many, all_of_them = (decode_step(MIXTRAL, batch, 100, "bfloat16") for batch in (1, 4, 4096))
    up, down = 2 * 4096 * 14336, 4096 * 14336
    for kernels, touched in ((one, 2.0), (many, 8 * (1 - 0.75**4)), (all_of_them, 8.0)):
        read = named(kernels, "experts_up_gate").required_bytes + named(kernels, "experts_down").required_bytes
        assert read == pytest.approx(touched * 2 * (up + down))
    assert named(many, "experts_up_gate").work.flop == 2 * 4 * 2 * up
    assert named(many, "router").work.flop == 2 * 4 * 8 * 4096
    assert named(many, "experts_up_gate").count == 32


def test_the_memory_roof_of_a_mixture_is_left_late() -> None:
    dense, mixture = Setup(LLAMA, H200, "bfloat16"), Setup(MIXTRAL, H200, "bfloat16")
    at, later = (leaves_memory_roof_at(one, 100, "matmul") for one in (dense, mixture))
    assert at is not None and later is not None
    assert 3.0 * at < later < 4.5 * at, "a quarter of the experts works for each token"


def test_latent_attention_reads_one_latent_a_token() -> None:
    kernels = decode_step(DEEPSEEK, 2, 1000, "bfloat16")
    attention = named(kernels, "attention_decode")
    assert attention.required_bytes == 2 * 1000 * 576 * 2
    assert attention.work.flop == 2 * 2 * 1000 * 128 * (576 + 512)
    far = named(decode_step(DEEPSEEK, 2, 100000, "bfloat16"), "attention_decode").work
    assert far.intensity == pytest.approx(2 * 128 * (576 + 512) / (576 * 2), rel=0.01)
    prefill = named(prefill_step(DEEPSEEK, 1, 100, "bfloat16"), "attention_prefill")
    assert prefill.work.flop == 2 * (100 * 101 / 2) * 128 * (192 + 128)
    assert [one.count for one in decode_step(DEEPSEEK, 1, 10) if one.name == "router"] == [58]


def test_picked_tokens_bound_sparse_attention() -> None:
    config = {**(DEEPSEEK.config or {}), "model_type": "deepseek_v32", "index_topk": 2048, "index_n_heads": 64}
    shape = from_hf_config({**config, "index_head_dim": 128, "torch_dtype": "bfloat16"})
    near, far = (decode_step(shape, 1, tokens, "bfloat16") for tokens in (4096, 32768))
    assert named(near, "attention_decode").work == named(far, "attention_decode").work
    assert named(far, "indexer").required_bytes == 32768 * (128 + 4)
    assert shape.kv_bytes_per_token("bfloat16") == 61 * (576 * 2 + 132)


def test_windows_bound_their_own_layers_only() -> None:
    oss = load_registry()["gpt-oss-20b"].architecture
    reads = sorted(
        one.required_bytes for one in decode_step(oss, 1, 4096, "bfloat16") if one.name == "attention_decode"
    )
    assert reads == [128 * 2 * 8 * 64 * 2, 4096 * 2 * 8 * 64 * 2]
    setup = Setup(oss, H200, "bfloat16")
    pool = 0.9 * H200.memory_bytes - 2 * GIB - oss.weight_bytes("bfloat16")
    assert largest_batch(setup, 4096) == int(pool / (12 * 2 * 8 * 64 * 2 * (4096 + 128)))


def test_state_is_read_and_written_whatever_the_context() -> None:
    shape = load_registry()["qwen3-next-80b-a3b-thinking"].architecture
    short, long = (named(decode_step(shape, 3, tokens, "bfloat16"), "state") for tokens in (10, 10000))
    assert short == long
    assert short.count == 36
    assert short.required_bytes == 3 * 2 * (32 * 128 * 128 * 4 + 3 * 8192 * 2)
    assert Setup(shape, H200, "bfloat16", parallel=Parallel(tensor=2)).weights_bytes_per_gpu < 82e9


@pytest.mark.parametrize(
    ("name", "bits", "peak"),
    [("fp8", 8, "fp8"), ("int8", 8, "int8"), ("awq", 4 + 20 / 128, ""), ("nvfp4", 4.5, "fp4")],
)
def test_rounded_weights_are_read_in_their_format(name: str, bits: float, peak: str) -> None:
    shape = rounded("llama-3.1-8b", name)
    kernel = named(decode_step(shape, 1, 100, "bfloat16"), "down")
    assert kernel.required_bytes == pytest.approx(4096 * 14336 * bits / 8, rel=1e-3)
    assert kernel.peak == main_peak(shape) == peak
    assert named(decode_step(shape, 1, 100, "bfloat16"), "lm_head").required_bytes == 2 * 128256 * 4096


def test_a_peak_that_the_gpu_has_not_is_that_of_16_bits() -> None:
    fp8, fp4 = rounded("llama-3.1-8b", "fp8"), rounded("llama-3.1-8b", "nvfp4")
    hopper, ampere = Setup(fp8, H200, "bfloat16"), Setup(fp8, find_gpu("A100"), "bfloat16")
    assert hopper.peak_flop_s("tensor", "fp8") == 1979e12
    assert ampere.peak_flop_s("tensor", "fp8") == ampere.peak_flop_s()
    assert Setup(fp4, H200, "bfloat16").peak_flop_s("tensor", "fp4") == 989e12
    long = [predict_decode(Setup(one, H200, "bfloat16"), 4096, 10).step_s for one in (LLAMA, fp8)]
    assert long[1] < 0.65 * long[0]


def test_the_checkpoints_cache_type_is_the_setups() -> None:
    quantization = {"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}
    shape = dataclasses.replace(LLAMA, quantization=quantization)
    assert Setup(shape, H200, "bfloat16").cache_dtype == "fp8"
    assert Setup(shape, H200, "bfloat16", "bfloat16").cache_dtype == "bfloat16"
    room = kv_capacity_tokens(Setup(shape, H200, "bfloat16")) / kv_capacity_tokens(Setup(LLAMA, H200, "bfloat16"))
    whole = 0.9 * H200.memory_bytes / GIB - 2
    assert room == pytest.approx(2 * (whole - 8.46) / (whole - 14.96), rel=0.001)


def test_tensor_parallel_by_hand() -> None:
    two = Parallel(tensor=2)
    kernels = decode_step(LLAMA, 8, 1000, "bfloat16", parallel=two)
    assert named(kernels, "qkv").required_bytes == 2 * (4096 + 2 * 1024) / 2 * 4096
    assert named(kernels, "down").required_bytes == 2 * 4096 * 14336 / 2
    assert named(kernels, "attention_decode").required_bytes == 8 * 1000 * 2 * 4 * 128 * 2
    reduce = named(kernels, "all_reduce")
    assert (reduce.count, reduce.link_bytes) == (64, 8 * 4096 * 2)  # 2 (n - 1) / n of the payload
    setup = Setup(LLAMA, H200, "bfloat16", parallel=two, link_bytes_s=450e9)
    assert predict_decode(setup, 8, 1000).communication_s == pytest.approx(64 * 8 * 4096 * 2 / 450e9)
    assert setup.weights_bytes_per_gpu == pytest.approx(LLAMA.weight_bytes("bfloat16") / 2, rel=1e-3)
    assert setup.weights_bytes_per_gpu / GIB == pytest.approx(7.54, rel=0.03), "logged by vLLM with two GPUs"


def test_more_gpus_than_kv_heads_hold_them_several_times() -> None:
    qwen = load_registry()["qwen3-30b-a3b"].architecture
    four, eight = (decode_step(qwen, 1, 1000, "bfloat16", parallel=Parallel(tensor=n)) for n in (4, 8))
    assert named(four, "attention_decode").required_bytes == named(eight, "attention_decode").required_bytes
    assert named(eight, "attention_decode").work.flop == named(four, "attention_decode").work.flop / 2
    latent = decode_step(DEEPSEEK, 1, 1000, "bfloat16", parallel=Parallel(tensor=8))
    assert named(latent, "attention_decode").required_bytes == 1000 * 576 * 2


def test_experts_over_gpus() -> None:
    sliced = decode_step(MIXTRAL, 64, 100, "bfloat16", parallel=Parallel(tensor=2))
    whole = decode_step(MIXTRAL, 64, 100, "bfloat16", parallel=Parallel(tensor=2, expert=True))
    for kernels in (sliced, whole):
        read = named(kernels, "experts_up_gate").required_bytes + named(kernels, "experts_down").required_bytes
        assert read == pytest.approx(4 * 2 * EXPERT, rel=1e-6)
        assert named(kernels, "experts_up_gate").work.flop == 64 * 2 * 2 * 2 * 4096 * 14336 / 2
    setup = Setup(MIXTRAL, H200, "bfloat16", parallel=Parallel(tensor=2))
    assert setup.weights_bytes_per_gpu / GIB == pytest.approx(43.51, rel=0.01), "logged by vLLM with two GPUs"
    six = ModelArchitecture.from_dict(
        resolve_model("m", {"m": {"base": "mixtral-8x7b", "architecture": {"layers": 6}}})["architecture"]
    )
    parts = Setup(six, H200, "bfloat16", parallel=Parallel(tensor=2, expert=True))
    assert parts.weights_bytes_per_gpu / GIB == pytest.approx(8.36, rel=0.01), "logged by vLLM with expert parallelism"


def test_data_parallel_groups_share_the_experts_only() -> None:
    spread = Parallel(data=8, expert=True)
    kernels = decode_step(DEEPSEEK, 256, 1000, "bfloat16", parallel=spread)
    assert named(kernels, "attention_decode").required_bytes == 256 / 8 * 1000 * 576 * 2
    assert named(kernels, "experts_down").work.flop == 2 * 256 * 8 / 8 * 7168 * 2048
    sent = named(kernels, "all_to_all")
    met = 8 * (1 - (7 / 8) ** 8)
    assert sent.count == 58
    assert sent.link_bytes == pytest.approx(32 * met * 7 / 8 * 7168 * (1 + 2))
    assert "all_reduce" not in [one.name for one in kernels]
    dense = 671.03e9 - 58 * 256 * 3 * 7168 * 2048
    held = Setup(DEEPSEEK, H200, "bfloat16", parallel=spread).weights_bytes_per_gpu
    assert held == pytest.approx(58 * 256 * 3 * 7168 * 2048 / 8 + dense, rel=0.15)


def test_a_pipeline_takes_its_stages_one_after_another() -> None:
    one, two = (Setup(LLAMA, H200, "bfloat16", parallel=Parallel(pipeline=n), link_bytes_s=450e9) for n in (1, 2))
    assert predict_decode(two, 2, 1000).step_s == pytest.approx(predict_decode(one, 1, 1000).step_s, rel=1e-3)
    assert two.weights_bytes_per_gpu == pytest.approx(one.weights_bytes_per_gpu / 2, rel=1e-3)
    assert named(two.decode(2, 10), "send").link_bytes == 4096 * 2


def test_links_that_are_not_known_take_no_time_and_are_told() -> None:
    known = Setup(LLAMA, H200, "bfloat16", parallel=Parallel(tensor=2))
    unknown = dataclasses.replace(known, gpu=dataclasses.replace(H200, link=None))
    assert known.link_rate_bytes_s == 450e9
    assert predict_decode(unknown, 1, 100).communication_s is None
    assert predict_decode(unknown, 1, 100).step_s < predict_decode(known, 1, 100).step_s
    assert predict_decode(dataclasses.replace(unknown, parallel=None), 1, 100).communication_s == 0.0


@pytest.mark.parametrize(
    ("spread", "sentence"),
    [
        (Parallel(tensor=3), "8 KV heads cannot be split evenly over 3 GPUs"),
        (Parallel(tensor=64), "32 heads cannot be split evenly over 64 GPUs"),
        (Parallel(data=3, expert=True), "8 experts cannot be spread evenly over 3 GPUs"),
    ],
)
def test_what_cannot_be_spread_is_one_sentence(spread: Parallel, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        Setup(MIXTRAL, H200, "bfloat16", parallel=spread)
    with pytest.raises(UserError, match="tensor parallelism is 0"):
        Parallel(tensor=0)


def test_every_known_model_is_predicted() -> None:
    plan: dict[str, Any] = {
        "models": sorted(load_registry()),
        "gpus": ["H200"],
        "batch": [1, 64],
        "context_tokens": 500,
    }
    table = planned_predictions(plan)
    assert len(table) == 2 * len(load_registry())
    assert (table["step_lower_bound_ms"] <= table["step_ms"] * (1 + 1e-9)).all()
    assert table["mbu_fraction"].between(0.3, 1.0 + 1e-9).all()
    spread = planned_predictions(
        {**plan, "models": ["deepseek-v3"], "parallel": {"data": 8, "expert": True}, "quantization": "fp8-block"}
    )
    assert spread["gpus"].tolist() == [8, 8]
    assert spread["weight_format"].iloc[0] == "fp8-block128x128"


def test_a_reward_model_has_no_logits() -> None:
    config = {
        **(load_registry()["qwen3-8b"].architecture.config or {}),
        "architectures": ["Qwen3ForSequenceClassification"],
    }
    names = [one.name for one in step_kernels(from_hf_config(config), decode_sequences=1, context_tokens=10)]
    assert "lm_head" not in names
    assert "sampler" not in names
