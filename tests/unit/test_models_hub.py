"""Models of a hub by their id alone, from a small hub on this machine that answers as the real one does."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from memgap.errors import UserError
from memgap.models import ModelArchitecture, load_registry, resolve_model
from memgap.models.hf_config import to_hf_config
from memgap.models.hub import LOCK
from tests.support.hub import COMMIT, TOKEN, Hub, Repository, serving

CONFIG = json.dumps(to_hf_config(load_registry()["qwen3-8b"].architecture, "bfloat16")).encode()
QUANT = b'{"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}}'


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """Serve open models, a gated one and a broken one, and work in a folder without pins or tokens."""
    repositories = {
        "open/model": Repository({"config.json": CONFIG}, tags={"v1": COMMIT}),
        "open/fp8": Repository({"config.json": CONFIG, "hf_quant_config.json": QUANT}),
        "gated/model": Repository({"config.json": CONFIG}, gated=True),
        "broken/model": Repository({"config.json": b"<html>"}),
    }
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    with serving(repositories) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        yield served


def test_an_id_is_enough_and_is_read_once(hub: Hub) -> None:
    models = {"mine": {"hub_id": "open/model"}}
    model = resolve_model("mine", models)
    assert (model["weights"], model["revision"], model["dtype"]) == ("hub", COMMIT, "bfloat16")
    assert ModelArchitecture.from_dict(model["architecture"]).parameter_count() == 8_190_735_360
    questions = len(hub.asked)
    assert questions == 2
    assert resolve_model("mine", models) == model
    assert len(hub.asked) == questions, "the pin is read, not the hub"
    assert json.loads(Path(LOCK).read_text())["open/model"]["commit"] == COMMIT


def test_a_pin_needs_no_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    models = {"mine": {"hub_id": "open/model"}}
    model = resolve_model("mine", models)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert resolve_model("mine", models) == model


def test_a_tag_becomes_the_commit(hub: Hub) -> None:
    model = resolve_model("mine", {"mine": {"hub_id": "open/model", "revision": "v1"}})
    assert model["revision"] == COMMIT
    assert list(json.loads(Path(LOCK).read_text())) == ["open/model@v1"]


def test_a_format_beside_the_config_is_read(hub: Hub) -> None:
    model = resolve_model("mine", {"mine": {"hub_id": "open/fp8"}})
    shape = ModelArchitecture.from_dict(model["architecture"])
    assert (shape.weight_format, shape.kv_dtype("bfloat16")) == ("fp8", "fp8")


def test_a_known_shape_takes_its_commit_from_the_hub(hub: Hub) -> None:
    model = resolve_model("mine", {"mine": {"base": "qwen3-8b", "weights": "hub", "hub_id": "open/model"}})
    assert model["revision"] == COMMIT


def test_a_gated_model_takes_a_token(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    models = {"mine": {"hub_id": "gated/model"}}
    with pytest.raises(UserError, match="does not give gated/model to everybody") as caught:
        resolve_model("mine", models)
    assert "HF_TOKEN" in str(caught.value)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "token").write_text(f"{TOKEN}\n")
    assert resolve_model("mine", models)["revision"] == COMMIT
    Path(LOCK).unlink()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert resolve_model("mine", models)["revision"] == COMMIT
    assert TOKEN not in Path(LOCK).read_text()


@pytest.mark.parametrize(
    ("hub_id", "words"),
    [
        ("no/such", ["has no", "no/such", "404"]),
        ("broken/model", ["no JSON object"]),
    ],
)
def test_what_the_hub_does_not_give_is_one_sentence(hub: Hub, hub_id: str, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        resolve_model("mine", {"mine": {"hub_id": hub_id}})
    message = str(caught.value)
    assert message.startswith("models.mine: ")
    assert "\n" not in message
    for word in words:
        assert word in message


def test_no_hub_and_damaged_pins(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"cannot read open/model from the hub at http://127\.0\.0\.1:9"):
        resolve_model("mine", {"mine": {"hub_id": "open/model"}})
    for text, words in (("{", "cannot be read"), ("[]", "JSON object"), ('{"open/model": {}}', "no whole entry")):
        Path(LOCK).write_text(text)
        with pytest.raises(UserError, match=words):
            resolve_model("mine", {"mine": {"hub_id": "open/model"}})
