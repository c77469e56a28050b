"""Hugging Face's own classes read the synthetic model folders as they are meant."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from memgap.engine.identity import engine_python, engine_record
from memgap.models import ModelArchitecture, load_registry, resolve_model, write_synthetic_model
from memgap.models.synthetic import encodes_text

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(
        engine_record("vllm", {"adapter": "vllm", "version": "auto", "image": None})["version"] == "not-installed",
        reason="vLLM is not installed in .venv-engine: `make install`",
    ),
]

SMALL = {
    "layers": 2,
    "hidden_size": 64,
    "heads": 4,
    "kv_heads": 2,
    "ffn_size": 128,
    "vocabulary_size": 300,
    "max_length": 64,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "opt": {"family": "opt", "kv_heads": 4},
    "opt-projected": {"family": "opt", "kv_heads": 4, "word_embed_proj_dim": 32},
    "llama": {"family": "llama"},
    "mistral": {"family": "llama", "sliding_window": 32, "head_dim": 8},
    "qwen2": {"family": "llama", "qkv_bias": True, "tied_embeddings": True},
}


def architectures() -> dict[str, ModelArchitecture]:
    """Return every model of the registry and small variants of each family."""
    variants = {name: ModelArchitecture.from_dict(SMALL | changes) for name, changes in VARIANTS.items()}
    return {**{name: load_registry()[name].architecture for name in sorted(load_registry())}, **variants}


@pytest.fixture(scope="module")
def readings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Return what transformers found in each folder."""
    root = tmp_path_factory.mktemp("models")
    for name in load_registry():
        write_synthetic_model(resolve_model(name, {name: {"weights": "synthetic"}}), root / name)
    for name in VARIANTS:
        model = {"name": name, "weights": "synthetic", "dtype": "float32"}
        write_synthetic_model(model | {"architecture": architectures()[name].to_dict()}, root / name)
    names = list(architectures())
    reading = [engine_python("auto"), str(Path(__file__).with_name("hf_reading.py")), *(str(root / n) for n in names)]
    done = subprocess.run(
        reading, capture_output=True, text=True, check=False, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(names, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("name", architectures())
def test_the_class_and_its_parameters_are_the_models(name: str, readings: dict[str, dict[str, Any]]) -> None:
    architecture = architectures()[name]
    assert readings[name]["hf_class"] == architecture.hf_class
    assert readings[name]["parameters"] == architecture.parameter_count()


@pytest.mark.parametrize("name", architectures())
def test_the_tokenizer_gives_ids_back(name: str, readings: dict[str, dict[str, Any]]) -> None:
    words = readings[name]["words"]
    assert words.replace(" ", "") == "w0w2w11w299"
    if encodes_text(architectures()[name]):
        assert words == "w0 w2 w11 w299"
        assert readings[name]["ids"] == [0, 2, 11, 299]
