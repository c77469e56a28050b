"""Prompts of text: which there are, how they are stored, and how they reach a server."""

import json
from pathlib import Path
from typing import Any

import pytest

from memgap.config.load import check_config
from memgap.datasets import build_dataset, load_dataset, resolve_dataset, source_files, store_dataset, warmup_prompts
from memgap.datasets.files import sidecar_path
from memgap.datasets.texts import own_texts
from memgap.engine.given import GivenFlags
from memgap.errors import UserError
from memgap.models import load_registry
from memgap.models.hf_config import to_hf_config
from memgap.study.study import expand_study
from memgap.tuning.speculation import check_speculation
from memgap.workflow import load_study
from tests.support.records import small_config
from tests.support.sessions import run_session


def spec(requests: int = 24, max_model_len: int | None = None, **entry: Any) -> dict[str, Any]:
    entry = {"kind": "texts", "output_tokens": 32, **entry}
    return resolve_dataset("d", {"d": entry}, requests=requests, vocabulary_size=8192, max_model_len=max_model_len)


def with_texts(folder: Path, **changes: Any) -> dict[str, Any]:
    """Return a configuration that asks a model with weights of its own, in `folder`."""
    folder.mkdir(exist_ok=True)
    shape = load_registry()["tiny-llama"].architecture
    (folder / "config.json").write_text(json.dumps(to_hf_config(shape, "bfloat16")))
    config = small_config(model="own", dataset="asked", batch_cap=2, **changes)
    config["models"] = {"own": {"path": str(folder)}}
    config["datasets"]["asked"] = {"kind": "texts", "requests": 32, "output_tokens": 8}
    return config


def test_the_projects_own_are_many_and_all_different() -> None:
    texts, edition = own_texts()
    assert len(texts) == len(set(texts)) >= 512
    assert all(one.strip() == one and "{" not in one and "\n" not in one for one in texts)
    assert min(map(len, texts)) < 30 < 300 < max(map(len, texts)), "short questions and long passages"
    assert len(edition) == 12


def test_equal_descriptions_give_equal_prompts_and_none_twice() -> None:
    first, second, other = build_dataset(spec(200)), build_dataset(spec(200)), build_dataset(spec(200, seed=1))
    assert first == second != other
    assert len({one.text for one in first}) == 200
    assert [one.token_ids for one in first] == [[]] * 200
    assert {one.output_tokens for one in first} == {32}
    assert spec(200)["key"] == spec(200)["key"] != spec(200, seed=1)["key"]


def test_warm_up_asks_nothing_that_is_measured(tmp_path: Path) -> None:
    described = spec(16, output_tokens=100)
    measured = build_dataset(described)
    warmup = warmup_prompts(described, n=5, like=measured)
    assert not {one.text for one in warmup} & {one.text for one in measured}
    assert len({(one.text or "")[:3] for one in warmup}) == 5, "no two begin alike"
    assert {one.output_tokens for one in warmup} == {32}
    assert len(warmup_prompts(described, n=3)) == 3


def test_texts_come_back_as_they_were_stored(tmp_path: Path) -> None:
    own = tmp_path / "mine.txt"
    own.write_text('Why?\n\n  Grüße: was heißt 人工知能? 🙂  \r\nWhy?\nA, B; "C" {}\n', encoding="utf-8")
    described = spec(3, path=str(own))
    store_dataset(tmp_path / "d.npz", described)
    stored = load_dataset(tmp_path / "d.npz")
    assert sorted(one.text or "" for one in stored.prompts) == ['A, B; "C" {}', "Grüße: was heißt 人工知能? 🙂", "Why?"]
    assert stored.statistics["prompt_characters"]["min"] == 4
    assert "prompt_tokens" not in stored.statistics, "nobody has counted them"
    assert stored.sources == source_files(described) and stored.sources[0]["name"] == "mine.txt"
    assert json.loads(sidecar_path(tmp_path / "d.npz").read_text())["spec"]["edition"] is None


def test_what_texts_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"datasets\.d: requests is 9999, but there are \d+ texts; lower it"):
        spec(9999)
    with pytest.raises(UserError, match=r"output_tokens .*below the server's max-model-len of 32"):
        spec(max_model_len=32)
    (tmp_path / "few.txt").write_text("one\ntwo\ntwo\n")
    with pytest.raises(UserError, match=r"has 2 prompts .* 24 requests are asked for"):
        build_dataset(spec(path=str(tmp_path / "few.txt")))
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="no text in UTF-8"):
        build_dataset(spec(path=str(tmp_path / "bytes.txt")))
    with pytest.raises(UserError, match="cannot read the prompts"):
        build_dataset(spec(path=str(tmp_path)))


def test_made_up_weights_know_no_text(tmp_path: Path) -> None:
    config = with_texts(tmp_path / "model")
    config["sweeps"]["small"]["fixed"]["model"] = "tiny-opt"
    with pytest.raises(
        UserError, match=r"datasets\.asked is text, of which the synthetic model tiny-opt knows no word"
    ):
        load_study(config)


def test_text_is_what_speculation_needs(tmp_path: Path) -> None:
    (point,) = load_study(with_texts(tmp_path / "model")).points.values()
    given = GivenFlags("vllm", {"speculative-config": {"method": "ngram", "num_speculative_tokens": 2}}, "here")
    check_speculation(given, point.record, "here")


@pytest.mark.parametrize("endpoint", ["completions", "chat"])
def test_texts_are_sent_as_they_are_and_counted_by_the_server(endpoint: str, tmp_path: Path) -> None:
    load = {"requests": 12, "warmup_requests": 2, "endpoint": endpoint, "ignore_eos": False}
    config = with_texts(tmp_path / "model", load=load, server={"step-base-ms": 1.0, "fault": "short-output:3"})
    study = expand_study(check_config(config))
    point = run_session(study, tmp_path)
    assert point["status"] == "ok", point["error"]
    summary, (spec,) = point["summary"], study.datasets.values()
    asked = [one.text or "" for one in build_dataset(spec)[:12]]
    assert summary["prompt_tokens"] == sum(len(one.split()) for one in asked), "as the server counts: words"
    assert "prompt_length_error_fraction" not in summary, "nobody knew them before"
    assert (summary["requests_ended"], summary["requests_cut"]) == (4, 8)
    assert summary["output_tokens"] == 4 * 4 + 8 * 8
    assert summary["ttft_text_mean_ms"] == pytest.approx(summary["ttft_mean_ms"])
    assert "ttft_answer_mean_ms" not in summary
    assert not {one["check"] for one in point["verdict"]["reasons"]} & {"failed_requests", "prompt_lengths"}
