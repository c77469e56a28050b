"""Models are fetched at a fixed commit where there is a network, and found again where there is none."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from memgap.models import load_registry, resolve_model
from memgap.models.hf_config import to_hf_config
from memgap.models.staging import CACHE, hub_model_name, ignored, offline_variables
from memgap.workflow import load_study
from tests.support.hub import COMMIT, TOKEN, Hub, Repository, serving
from tests.support.records import small_config

SCRIPT = Path(__file__).resolve().parents[2] / "workflow/scripts/stage_model.py"
CONFIG = json.dumps(to_hf_config(load_registry()["tiny-llama"].architecture, "bfloat16")).encode()
FILES = {"config.json": CONFIG, "model.safetensors": b"weights", "pytorch_model.bin": b"pickle"}
MODEL = {"name": "small", "weights": "hub", "hub_id": "someone/small", "revision": COMMIT}


@pytest.fixture
def hub() -> Iterator[Hub]:
    repositories = {"someone/small": Repository(FILES), "someone/gated": Repository(FILES, gated=True)}
    with serving(repositories) as served:
        yield served


def stage(folder: Path, hub: Hub, model: dict[str, Any], **variables: str) -> subprocess.CompletedProcess[str]:
    plan = folder / "model.json"
    plan.write_text(json.dumps(model))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "home"), **variables}
    options = ["--plan", str(plan), "--results", str(folder / "results"), "--out", str(folder / "results/hub/x.json")]
    command = [sys.executable, str(SCRIPT), *options]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def found_offline(folder: Path, hub_id: str, revision: str) -> Path:
    """Return the folder in which an engine without a network finds the weights, as vLLM asks for them."""
    wanted = "allow_patterns=['*.safetensors']"
    find = f"import huggingface_hub as h; print(h.snapshot_download({hub_id!r}, revision={revision!r}, {wanted}))"
    environment = {**os.environ, **offline_variables(folder / "results")}
    found = subprocess.run(
        [sys.executable, "-c", find], capture_output=True, text=True, env=environment, check=False, cwd="/"
    )
    assert found.returncode == 0, found.stderr
    return Path(found.stdout.strip())


def test_a_model_is_fetched_once_and_found_without_a_network(hub: Hub, tmp_path: Path) -> None:
    done = stage(tmp_path, hub, MODEL)
    assert done.returncode == 0, done.stderr
    note = json.loads((tmp_path / "results/hub/x.json").read_text())
    assert note["commit"] == COMMIT
    assert set(note["files_bytes"]) == {"config.json", "model.safetensors"}
    asked = len(hub.asked)
    folder = found_offline(tmp_path, "someone/small", COMMIT)
    assert folder.is_relative_to(tmp_path / "results" / CACHE)
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert len(hub.asked) == asked


def test_a_model_named_by_its_id_is_staged_at_the_commit_that_was_pinned(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    models = {"mine": {"hub_id": "someone/small"}}
    resolve_model("mine", models)
    hub.repositories["someone/small"].move_on("d" * 40, {"config.json": CONFIG, "model.safetensors": b"newer"})
    model = resolve_model("mine", models)
    assert model["revision"] == COMMIT, "pinned"
    done = stage(tmp_path, hub, model)
    assert done.returncode == 0, done.stderr
    folder = found_offline(tmp_path, "someone/small", model["revision"])
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert not [path for path in hub.asked if "d" * 40 in path]


def test_a_gated_model_is_staged_with_a_token_that_is_kept_nowhere(hub: Hub, tmp_path: Path) -> None:
    gated = {**MODEL, "hub_id": "someone/gated"}
    done = stage(tmp_path, hub, gated)
    assert done.returncode == 2
    said = done.stderr.splitlines()[-1]
    assert said.startswith(f"memgap: cannot fetch someone/gated at {COMMIT} from the hub: ") and "401" in said
    assert stage(tmp_path, hub, gated, HF_TOKEN=TOKEN).returncode == 0
    assert (found_offline(tmp_path, "someone/gated", COMMIT) / "config.json").read_bytes() == CONFIG
    assert TOKEN not in (tmp_path / "results/hub/x.json").read_text()


def test_a_hub_that_refuses_is_one_sentence(hub: Hub, tmp_path: Path) -> None:
    done = stage(tmp_path, hub, {**MODEL, "hub_id": "someone/gone"})
    assert done.returncode == 2
    said = done.stderr.splitlines()[-1]
    assert said.startswith(f"memgap: cannot fetch someone/gone at {COMMIT} from the hub: ")
    assert "404" in said
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "results/hub/x.json").exists()


def test_pickled_weights_are_fetched_only_where_there_are_no_others() -> None:
    assert "*.bin" in ignored(["a.safetensors", "a.bin"])
    assert "*.bin" not in ignored(["a.bin"])


@pytest.mark.parametrize("offline", [False, True])
def test_only_where_asked_for_are_models_staged_and_keys_stay(offline: bool) -> None:
    config = small_config(batch_cap=1)
    config["models"] = {
        "tiny-opt": {"base": "tiny-opt", **{key: MODEL[key] for key in ("weights", "hub_id", "revision")}}
    }
    keys = set(load_study(config).points)
    config["resources"] = {"offline_nodes": offline}
    study = load_study(config)
    assert set(study.points) == keys
    (session,) = study.sessions
    names = {hub_model_name(point.record["model"]) for point in study.points.values()}
    assert set(study.hub_models) == (names if offline else set())
    assert study.session_plan(session)["options"].get("offline_nodes", False) is offline
