"""Work counted from a model's shape, against values computed by hand."""

import dataclasses

import pytest

from memgap.errors import UserError
from memgap.models import load_registry
from memgap.models.architecture import ModelArchitecture
from memgap.roofline.work import (
    Work,
    attention_decode,
    attention_prefill,
    decode_step,
    embedding_projections,
    kv_write,
    layer_gemms,
    lm_head,
    matmul,
    model_flop,
    prefill_step,
    step_kernels,
    total,
)

OPT = load_registry()["opt-1.3b"].architecture
LLAMA3 = load_registry()["llama-3-8b"].architecture


def test_opt_by_hand() -> None:
    assert matmul(3, 5, 7, "float16") == Work(210.0, 2 * (21 + 35 + 15))
    gemms = {gemm.name: (gemm.n, gemm.k, gemm.bias) for gemm in layer_gemms(OPT)}
    assert gemms == {
        "qkv": (6144, 2048, True),
        "out": (2048, 2048, True),
        "up": (8192, 2048, True),
        "down": (2048, 8192, True),
    }
    assert (lm_head(OPT).n, lm_head(OPT).k, lm_head(OPT).bias) == (50272, 2048, False)
    attention = attention_decode(OPT, 64, 500, "float16")
    assert attention.flop == 4 * 64 * 500 * 2048 == 262_144_000
    assert attention.bytes == 64 * 500 * 2 * 2048 * 2 + 2 * 64 * 2048 * 2 == 262_668_288
    assert attention.intensity == pytest.approx(1.0, rel=0.003)
    assert kv_write(OPT, 64, "float16", "float16").bytes == 2 * 64 * 2 * 2048 * 2


def test_grouped_heads_by_hand() -> None:
    gemms = {gemm.name: (gemm.n, gemm.k, gemm.bias) for gemm in layer_gemms(LLAMA3)}
    assert gemms == {
        "qkv": (4096 + 2 * 1024, 4096, False),
        "out": (4096, 4096, False),
        "up_gate": (2 * 14336, 4096, False),
        "down": (4096, 14336, False),
    }
    attention = attention_decode(LLAMA3, 2, 1000, "bfloat16")
    assert attention.flop == 4 * 2 * 1000 * 4096
    assert attention.bytes == 2 * 1000 * 2 * 1024 * 2 + 2 * 2 * 4096 * 2
    assert attention.intensity == pytest.approx(4.0, rel=0.005), "four query heads share a KV head"
    eight_bits = attention_decode(LLAMA3, 2, 1000, "fp8", "bfloat16")
    assert eight_bits.intensity == pytest.approx(8.0, rel=0.01)


def test_a_matmul_of_few_rows_has_their_number_as_intensity() -> None:
    for rows in (1, 16, 64):
        assert matmul(rows, 16384, 16384, "float16").intensity == pytest.approx(rows, rel=0.02)


@pytest.mark.parametrize(
    "name", sorted(one for one in load_registry() if load_registry()[one].architecture.config is None)
)
def test_the_products_hold_all_weights(name: str) -> None:
    shape = load_registry()[name].architecture
    products = shape.layers * sum(gemm.parameters for gemm in layer_gemms(shape))
    products += lm_head(shape).parameters + sum(gemm.parameters for gemm in embedding_projections(shape))
    norms = (2 * shape.layers + 1) * shape.hidden_size * (2 if shape.family == "opt" else 1)
    positions = (shape.max_length + shape.position_offset) * shape.hidden_size if shape.family == "opt" else 0
    inputs = 0 if shape.tied_embeddings else shape.vocabulary_size * shape.word_embed_proj_dim
    assert products + norms + positions + inputs == shape.parameter_count()


def test_narrow_embeddings_are_projected() -> None:
    shape = ModelArchitecture.from_dict({**OPT.to_dict(), "word_embed_proj_dim": 512})
    assert [(gemm.n, gemm.k) for gemm in embedding_projections(shape)] == [(2048, 512), (512, 2048)]
    assert lm_head(shape).k == 512
    names = [kernel.name for kernel in decode_step(shape, 1, 10)]
    assert names.index("project_in") < names.index("qkv") < names.index("project_out") < names.index("lm_head")


def test_a_decode_step_by_hand() -> None:
    kernels = decode_step(OPT, 1, 100)
    weights = 24 * sum(gemm.parameters for gemm in layer_gemms(OPT)) + lm_head(OPT).parameters
    assert sum(one.count * one.required_bytes for one in kernels if one.kernel_class == "matmul") == 2 * weights
    read = sum(one.count * one.required_bytes for one in kernels if one.kernel_class == "attention")
    assert read == 100 * OPT.kv_bytes_per_token("float16")
    written = sum(one.count * one.required_bytes for one in kernels if one.kernel_class == "kv_write")
    assert written == OPT.kv_bytes_per_token("float16")
    logits = next(one for one in kernels if one.name == "sampler")
    assert logits.work.bytes == 50272 * (2 + 4 + 4)
    assert total(kernels).flop == pytest.approx(model_flop(OPT, 1, 100), rel=0.01), "two operations a weight"


def test_prefill_is_causal_and_makes_one_row_of_logits() -> None:
    assert attention_prefill(OPT, 1, 4, "float16").flop == 4 * (1 + 2 + 3 + 4) * 2048
    assert attention_prefill(LLAMA3, 2, 8, "float16").bytes == 2 * 8 * (2 * 32 + 2 * 8) * 128 * 2
    kernels = prefill_step(OPT, 3, 100)
    assert next(one for one in kernels if one.name == "lm_head").work.flop == 2 * 3 * 50272 * 2048
    assert not [one for one in kernels if one.name == "attention_decode"]
    assert total(kernels, "attention").flop == 24 * 4 * 3 * (100 * 101 / 2) * 2048


def test_a_window_bounds_what_a_token_attends_to() -> None:
    mistral = load_registry()["mistral-7b-v0.1"].architecture
    far, near = (attention_decode(mistral, 1, tokens, "bfloat16") for tokens in (20000, 4096))
    assert far == near
    small = dataclasses.replace(LLAMA3, sliding_window=2)
    assert attention_prefill(small, 1, 4, "float16").flop == 4 * (1 + 2 + 2 + 2) * 4096


def test_a_mixed_step_shares_the_weights() -> None:
    both = step_kernels(OPT, decode_sequences=8, context_tokens=100, prefill_sequences=1, prompt_tokens=50)
    apart = total(decode_step(OPT, 8, 100)) + total(prefill_step(OPT, 1, 50))
    together = total(both)
    assert together.flop == pytest.approx(apart.flop, rel=1e-3)
    assert apart.bytes - together.bytes == pytest.approx(
        2 * (24 * sum(gemm.parameters for gemm in layer_gemms(OPT)) + lm_head(OPT).parameters), rel=1e-6
    )


def test_heads_that_do_not_fill_the_hidden_width_count_as_they_are() -> None:
    wide = dataclasses.replace(LLAMA3, head_dim=256)
    assert model_flop(wide, 0, 10) == 4 * 32 * (32 * 256) * 10


def test_unknown_types_are_one_sentence() -> None:
    with pytest.raises(UserError, match="unknown type of KV cache 'fp9'"):
        attention_decode(OPT, 1, 1, "fp9")
