"""Predictions by the roofline: round numbers, monotony, limits, and what cannot be."""

import dataclasses
import itertools
import json
from typing import Any

import pytest

from memgap import cli
from memgap.errors import UserError
from memgap.models import load_registry
from memgap.roofline.gpus import GIB, find_gpu
from memgap.roofline.parallel import Parallel
from memgap.roofline.predict import (
    Setup,
    kv_capacity_tokens,
    largest_batch,
    leaves_memory_roof_at,
    predict_decode,
    predict_prefill_s,
    throughput_ceiling,
)
from memgap.roofline.predictions import COLUMNS, NEVER, planned_predictions, setup_of
from memgap.roofline.work import decode_step, total
from memgap.tables.predictions import READ

OPT = Setup(load_registry()["opt-1.3b"].architecture, find_gpu("H200"))
GQA = Setup(load_registry()["llama-3-8b"].architecture, find_gpu("H200"), "bfloat16")
PLAN: dict[str, Any] = {"models": ["opt-1.3b"], "gpus": ["H200"], "batch": [1, 64], "context_tokens": 400}


def test_one_sequence_reads_the_weights() -> None:
    found = predict_decode(OPT, 1, 100)
    weights_s = OPT.architecture.weight_bytes("float16") / 4.8e12
    assert found.step_s == pytest.approx(weights_s, rel=0.02)
    assert found.bound == "memory"
    assert found.mbu_fraction == pytest.approx(1.0, abs=0.01)
    assert found.throughput_tok_s == pytest.approx(1 / found.step_s)
    assert found.intensity_flop_byte == pytest.approx(1.0, rel=0.02)


@pytest.mark.parametrize("setup", [OPT, GQA], ids=["heads", "groups"])
def test_more_work_takes_longer_and_stays_under_the_roofs(setup: Setup) -> None:
    steps = [predict_decode(setup, batch, 400) for batch in (1, 2, 8, 64, 200, 256, 512, 2048)]
    for smaller, larger in itertools.pairwise(steps):
        assert smaller.step_s < larger.step_s
        assert smaller.throughput_tok_s <= larger.throughput_tok_s * (1 + 1e-9)
    for one in steps:
        assert one.lower_bound_s <= one.step_s
        assert 0 < one.mbu_fraction <= 1
        assert one.flop_s <= min(setup.peak_flop_s(), one.intensity_flop_byte * setup.bandwidth_bytes_s) * (1 + 1e-9)
        assert sum(one.class_s.values()) == pytest.approx(one.step_s)
    assert predict_decode(setup, 8, 800).step_s > predict_decode(setup, 8, 400).step_s
    assert predict_prefill_s(setup, 2, 400) > predict_prefill_s(setup, 1, 400)


def test_a_better_gpu_or_smaller_cache_is_never_slower() -> None:
    base = predict_decode(OPT, 64, 400).step_s
    assert predict_decode(dataclasses.replace(OPT, gpu=find_gpu("H100")), 64, 400).step_s > base
    assert predict_decode(dataclasses.replace(OPT, gpu=find_gpu("B200")), 64, 400).step_s < base
    assert predict_decode(dataclasses.replace(OPT, kv_dtype="fp8"), 64, 400).step_s < base
    two = dataclasses.replace(OPT, gpus=2, link_bytes_s=450e9)
    assert base / 2 < predict_decode(two, 64, 400).step_s < 0.7 * base
    assert predict_decode(dataclasses.replace(OPT, efficiency=0.5), 1, 400).step_s == pytest.approx(
        2 * predict_decode(OPT, 1, 400).step_s, rel=0.01
    )


def test_the_kv_cache_is_what_the_weights_leave() -> None:
    budget = 0.9 * 143771 * 2**20 - 2 * GIB - OPT.architecture.weight_bytes("float16")
    tokens = kv_capacity_tokens(OPT)
    assert tokens % 16 == 0
    assert tokens == pytest.approx(budget / OPT.architecture.kv_bytes_per_token("float16"), abs=16)
    assert largest_batch(OPT, 330) == tokens // 336
    assert kv_capacity_tokens(dataclasses.replace(OPT, kv_dtype="fp8")) == pytest.approx(2 * tokens, abs=32)
    llama = load_registry()["llama-2-13b"].architecture
    full = Setup(llama, find_gpu("T4"))
    assert (kv_capacity_tokens(full), largest_batch(full, 330)) == (0, 0)
    assert throughput_ceiling(full, 330).at_largest_batch_tok_s == 0.0


def test_where_decoding_leaves_the_memory_roof() -> None:
    assert leaves_memory_roof_at(OPT, 400) is None, "each sequence brings more bytes than operations"
    assert leaves_memory_roof_at(OPT, 400, "attention") is None
    for setup, kind in ((OPT, "matmul"), (GQA, "matmul"), (GQA, None)):
        batch = leaves_memory_roof_at(setup, 400, kind)
        assert batch is not None
        work = total(decode_step(setup.architecture, batch, 400, setup.dtype), kind)
        assert work.intensity == pytest.approx(setup.peak_flop_s() / setup.bandwidth_bytes_s, rel=1e-6)


def test_the_ceiling_is_approached_from_below() -> None:
    for setup in (OPT, GQA):
        ceiling = throughput_ceiling(setup, 400)
        assert ceiling.largest_batch == largest_batch(setup, 400)
        assert predict_decode(setup, 8, 400).throughput_tok_s < ceiling.at_largest_batch_tok_s
        assert ceiling.at_largest_batch_tok_s <= ceiling.limit_tok_s * (1 + 1e-6)
    assert throughput_ceiling(OPT, 400).limit == "attention (memory)"
    assert throughput_ceiling(GQA, 100).limit == "matmul (compute)"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"gpus": 3}, "32 KV heads cannot be split evenly over 3 GPUs"),
        ({"parallel": Parallel(pipeline=25)}, "24 layers cannot be spread over 25 GPUs"),
        ({"efficiency": 0.0}, "the efficiency is 0, but must lie above 0"),
        ({"utilization": 1.5}, "the memory utilisation is 1.5"),
        ({"kv_dtype": "fp9"}, "unknown type of KV cache 'fp9'"),
    ],
)
def test_impossible_setups_are_one_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        dataclasses.replace(OPT, **changes)


def test_impossible_numbers_are_one_sentence() -> None:
    with pytest.raises(UserError, match="batch is 0, but must be a number above 0"):
        predict_decode(OPT, 0, 400)
    with pytest.raises(UserError, match="prompt tokens is nan"):
        predict_prefill_s(OPT, 1, float("nan"))


def test_the_table_has_a_row_for_each_batch() -> None:
    plan = {
        **PLAN,
        "models": ["opt-1.3b", "mine"],
        "gpus": ["H200", "A100"],
        "config_models": {"mine": {"base": "opt-125m"}},
    }
    table = planned_predictions(plan)
    assert list(table.columns) == list(COLUMNS)
    assert len(table) == 8
    assert table["step_leaves_memory_roof_at_batch"].tolist() == [NEVER] * 8
    parts = table["matmul_ms"] + table["attention_ms"] + table["other_ms"]
    assert parts.tolist() == pytest.approx(table["step_ms"].tolist())
    assert "datasheet" in table["gpu_source"].iloc[0]
    assert setup_of("llama-3-8b", "H200").dtype == "bfloat16"


def test_a_table_that_is_none_is_one_sentence(tmp_path: Any) -> None:
    with pytest.raises(UserError, match="not a table of predictions"):
        READ["predictions"].read(tmp_path / "none.csv")
    (tmp_path / "x.csv").write_text("a\n1\n")
    with pytest.raises(UserError, match="the column model is missing"):
        READ["predictions"].read(tmp_path / "x.csv")


def test_the_command_prints_tables(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["predict", "--model", "opt-1.3b", "--gpu", "H200", "--batch", "1,32", "--context", "330"]
    assert cli.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "opt-1.3b (float16, KV cache float16) on H200, 330 tokens of context" in printed
    assert "at no batch, because attention grows with the batch" in printed
    assert cli.main([*arguments, "--gpus", "2", "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["batch"] for row in rows] == [1, 32]
    assert rows[0]["gpus"] == 2
    assert cli.main([*arguments, "--format", "csv"]) == 0
    assert capsys.readouterr().out.startswith("model,gpu,")
    assert cli.main(["predict", "--model", "llama-2-13b", "--gpu", "T4"]) == 0
    assert "it does not fit" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--model", "opt-1.3", "--gpu", "H200"], "unknown model 'opt-1.3' (did you mean opt-1.3b?"),
        (["--model", "opt-1.3b", "--gpu", "H2000"], "unknown GPU 'H2000' (did you mean H200?"),
        (["--model", "opt-1.3b", "--gpu", "H200", "--batch", "1,x"], "--batch '1,x' is no list"),
        (["--model", "opt-1.3b", "--gpu", "H200", "--dtype", "int4"], "no roofline for the dtype 'int4'"),
        (["--model", "opt-1.3b", "--gpu", "H200", "--context", "-1"], "is -1, but must be a number above 0"),
    ],
)
def test_mistakes_are_one_sentence(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["predict", *arguments]) == 2
    printed = capsys.readouterr().err
    assert sentence in printed
    assert printed.count("\n") == 1
