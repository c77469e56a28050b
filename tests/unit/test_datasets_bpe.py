"""Real text for models whose repository has vocab.json and merges.txt instead of tokenizer.json, as OPT's."""

import json
from pathlib import Path

import pytest

from memgap.datasets import build_dataset, source_files
from memgap.datasets.spec import resolve_dataset
from memgap.errors import UserError

pytest.importorskip("tokenizers", reason="NOT CHECKED HERE: the package tokenizers is not installed")


@pytest.fixture
def spec(tmp_path: Path) -> dict[str, object]:
    """Return a dataset of two conversations with a five-token byte-level BPE."""
    letters = {"</s>": 2, "a": 3, "b": 4, "ab": 5, "\u0120": 6, "<pad>": 1, "<unk>": 0}
    (tmp_path / "vocab.json").write_text(json.dumps(letters))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n")
    talks = [
        {"conversations": [{"from": "human", "value": "ab ab ab"}, {"from": "gpt", "value": "ab a b ab"}]},
        {"conversations": [{"from": "gpt", "value": "ab ab ab"}, {"from": "human", "value": "ab"}]},
    ]
    (tmp_path / "talks.json").write_text(json.dumps(talks))
    entry = {"kind": "sharegpt", "path": str(tmp_path / "talks.json"), "tokenizer": str(tmp_path), "token_ids": "text"}
    return resolve_dataset("real", {"real": entry}, requests=1, vocabulary_size=64)


def test_merges_are_applied_and_the_prompt_begins_as_opts_does(spec: dict[str, object]) -> None:
    (prompt,) = build_dataset(spec)
    assert prompt.token_ids == [2, 5, 6, 5, 6, 5]
    assert prompt.output_tokens == 7
    assert [source["name"] for source in source_files(spec)] == ["talks.json", "vocab.json", "merges.txt"]


def test_a_folder_without_any_tokenizer_is_one_sentence(spec: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(UserError, match=r"tokenizer\.json"):
        build_dataset(spec)
