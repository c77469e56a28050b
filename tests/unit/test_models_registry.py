"""From a model's name and the config to the model part of a point record."""

import json
from pathlib import Path
from typing import Any

import pytest

from memgap.canonical import canonical_json
from memgap.errors import UserError
from memgap.models import ModelArchitecture, load_registry, resolve_model
from memgap.models.hf_config import to_hf_config

SHAPE: dict[str, Any] = {
    "family": "llama",
    "layers": 2,
    "hidden_size": 64,
    "heads": 4,
    "ffn_size": 128,
    "vocabulary_size": 100,
    "max_length": 32,
}
FIELDS = {"name", "weights", "hub_id", "revision", "path", "dtype", "architecture"}


@pytest.mark.parametrize("name", sorted(load_registry()))
def test_every_known_model_resolves_without_a_config(name: str) -> None:
    model = resolve_model(name)
    assert set(model) == FIELDS
    assert ModelArchitecture.from_dict(model["architecture"]) == load_registry()[name].architecture
    assert (model["weights"] == "hub") == (model["hub_id"] is not None) == (model["revision"] is not None)
    assert (model["weights"] == "hub") == (load_registry()[name].revision is not None)
    assert canonical_json(json.loads(canonical_json(model))) == canonical_json(model)


def test_made_up_models_have_synthetic_weights() -> None:
    for name in ("tiny-opt", "tiny-llama"):
        model = resolve_model(name, {name: None})
        assert (model["weights"], model["hub_id"], model["revision"]) == ("synthetic", None, None)


def test_synthetic_weights_drop_the_hub_from_the_record() -> None:
    model = resolve_model("opt-1.3b", {"opt-1.3b": {"weights": "synthetic"}})
    assert (model["weights"], model["hub_id"], model["revision"]) == ("synthetic", None, None)
    assert model["dtype"] == "float16"


def test_an_own_name_takes_its_shape_from_a_base() -> None:
    model = resolve_model(
        "mine", {"mine": {"base": "tiny-opt", "dtype": "float32", "architecture": {"layers": 1, "heads": 4}}}
    )
    shape = model["architecture"]
    assert (model["name"], model["dtype"], shape["layers"], shape["hidden_size"]) == (
        "mine",
        "float32",
        1,
        512,
    )
    assert (shape["heads"], shape["kv_heads"], shape["head_dim"]) == (4, 4, 128)


def test_a_shape_of_ones_own_needs_a_dtype() -> None:
    model = resolve_model("mine", {"mine": {"architecture": SHAPE, "dtype": "bfloat16"}})
    assert (model["weights"], model["architecture"]["kv_heads"]) == ("synthetic", 4)
    with pytest.raises(UserError, match="dtype is missing"):
        resolve_model("mine", {"mine": {"architecture": SHAPE}})


def test_a_folder_describes_itself(tmp_path: Path) -> None:
    config = to_hf_config(ModelArchitecture.from_dict(SHAPE), "bfloat16")
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = resolve_model("mine", {"mine": {"path": str(tmp_path)}})
    assert (model["weights"], model["path"], model["dtype"]) == ("path", str(tmp_path), "bfloat16")
    assert ModelArchitecture.from_dict(model["architecture"]) == ModelArchitecture.from_dict(SHAPE)


def test_a_path_with_a_base_is_not_opened() -> None:
    model = resolve_model("opt-1.3b", {"opt-1.3b": {"path": "/nowhere/opt"}})
    assert (model["weights"], model["path"], model["hub_id"]) == ("path", "/nowhere/opt", None)


def test_another_hub_repository_has_a_commit_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    entry = {"base": "opt-1.3b", "hub_id": "someone/opt"}
    with pytest.raises(UserError, match="someone/opt is not pinned"):
        resolve_model("mine", {"mine": entry})
    model = resolve_model("mine", {"mine": entry | {"revision": "abc"}})
    assert (model["weights"], model["hub_id"], model["revision"]) == ("hub", "someone/opt", "abc")


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"bass": "tiny-opt"}, ["'bass'", "did you mean base"]),
        ({"base": "tiny-otp"}, ["'tiny-otp'", "did you mean tiny-opt"]),
        ({}, ["needs base", "architecture"]),
        ({"base": "tiny-opt", "weights": "real"}, ["weights is 'real'", "synthetic"]),
        ({"base": "tiny-opt", "weights": "hub"}, ["hub_id"]),
        ({"base": "tiny-opt", "weights": "path"}, ["path must name"]),
        ({"base": "opt-1.3b", "weights": "hub", "path": "/x"}, ["path is given", "weights is hub"]),
        ({"base": "tiny-opt", "weights": "synthetic", "hub_id": "a/b"}, ["hub_id is given"]),
        ({"base": "tiny-opt", "weights": "synthetic", "revision": "a"}, ["revision is given"]),
        ({"base": "tiny-opt", "dtype": "int8"}, ["dtype is 'int8'", "bfloat16"]),
        ({"base": "tiny-opt", "architecture": {"layers": -1}}, ["models.mine.architecture", "layers is -1"]),
        ({"base": "tiny-opt", "architecture": "opt"}, ["models.mine.architecture", "mapping"]),
        ({"path": "/nowhere/mine"}, ["/nowhere/mine/config.json", "base or architecture"]),
        ("tiny-opt", ["models.mine", "mapping"]),
    ],
)
def test_bad_entries_are_refused_in_one_sentence(entry: object, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        resolve_model("mine", {"mine": entry})
    message = str(caught.value)
    assert message.startswith("models.mine")
    assert "\n" not in message
    for word in words:
        assert word in message


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"'opt-1\.3' .*did you mean opt-1\.3b.*mine.*tiny-opt"):
        resolve_model("opt-1.3", {"mine": {}})
    with pytest.raises(UserError, match="models: "):
        resolve_model("tiny-opt", ["tiny-opt"])  # type: ignore[arg-type]


def test_a_garbled_config_json_is_refused(tmp_path: Path) -> None:
    for text in ("{", "[]"):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(UserError, match=r"config\.json"):
            resolve_model("mine", {"mine": {"path": str(tmp_path)}})
