"""Model folders without weights, and what Hugging Face makes of them where it is installed."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from memgap.errors import UserError
from memgap.models import resolve_model, write_synthetic_model
from memgap.models.synthetic import FILES

SCRIPT = Path(__file__).parents[2] / "workflow" / "scripts" / "write_model.py"
SMALL = {
    "layers": 2,
    "hidden_size": 64,
    "heads": 4,
    "kv_heads": 2,
    "ffn_size": 128,
    "vocabulary_size": 300,
    "max_length": 64,
}


def synthetic(name: str) -> dict[str, Any]:
    return resolve_model(name, {name: {"weights": "synthetic"}})


def read(folder: Path) -> dict[str, Any]:
    return {name: json.loads((folder / name).read_text()) for name in FILES}


def test_the_folder_holds_a_config_and_a_word_level_tokenizer(tmp_path: Path) -> None:
    write_synthetic_model(synthetic("tiny-opt"), tmp_path / "model")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == sorted(FILES)
    files = read(tmp_path / "model")
    assert files["config.json"]["architectures"] == ["OPTForCausalLM"]
    assert files["config.json"]["torch_dtype"] == "bfloat16"
    assert files["tokenizer_config.json"]["model_max_length"] == 2048
    tokenizer = files["tokenizer.json"]
    assert tokenizer["added_tokens"] == []
    vocabulary = tokenizer["model"]["vocab"]
    assert sorted(vocabulary.values()) == list(range(8192))
    assert all(word == f"w{token_id}" for word, token_id in vocabulary.items())
    assert tokenizer["model"]["unk_token"] == "w0"


def test_equal_models_give_equal_bytes(tmp_path: Path) -> None:
    for folder in ("first", "second"):
        write_synthetic_model(synthetic("tiny-llama"), tmp_path / folder)
    for name in FILES:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


@pytest.mark.parametrize(
    ("name", "hf_class", "model_type"),
    [
        ("opt-125m", "OPTForCausalLM", "opt"),
        ("llama-3.1-8b", "LlamaForCausalLM", "llama"),
        ("mistral-7b-v0.1", "MistralForCausalLM", "mistral"),
        ("qwen2.5-7b", "Qwen2ForCausalLM", "qwen2"),
    ],
)
def test_each_kind_of_model_gets_its_hugging_face_class(
    tmp_path: Path, name: str, hf_class: str, model_type: str
) -> None:
    write_synthetic_model(synthetic(name), tmp_path)
    config = read(tmp_path)["config.json"]
    assert (config["architectures"], config["model_type"]) == ([hf_class], model_type)


def test_only_synthetic_models_are_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="weights are hub"):
        write_synthetic_model(resolve_model("opt-1.3b"), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match="taken"):
        write_synthetic_model(synthetic("tiny-opt"), tmp_path / "taken" / "model")


def run_script(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False)


def test_the_entry_point_writes_or_says_why_not(tmp_path: Path) -> None:
    spec = tmp_path / "model.json"
    spec.write_text(json.dumps(synthetic("tiny-opt")))
    done = run_script("--plan", str(spec), "--out", str(tmp_path / "model"))
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "model" / "config.json").is_file()
    for text in (
        "{",
        "[]",
        json.dumps(resolve_model("opt-1.3b")),
        json.dumps(synthetic("tiny-opt") | {"dtype": 3}),
    ):
        spec.write_text(text)
        failed = run_script("--plan", str(spec), "--out", str(tmp_path / "other"))
        assert failed.returncode == 2
        assert failed.stderr.startswith("memgap: ")
        assert failed.stderr.count("\n") == 1
