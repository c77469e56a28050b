"""Models are fetched at a fixed commit where there is a network, and found again where there is none."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from memgap.models.staging import CACHE, hub_model_name, ignored, offline_variables
from memgap.workflow import load_study
from tests.support.records import small_config

SCRIPT = Path(__file__).resolve().parents[2] / "workflow/scripts/stage_model.py"
COMMIT = "c" * 40
FILES = {"config.json": b'{"model_type": "opt"}', "model.safetensors": b"weights", "pytorch_model.bin": b"pickle"}
MODEL = {"name": "small", "weights": "hub", "hub_id": "someone/small", "revision": COMMIT}


class Hub(BaseHTTPRequestHandler):
    """The few answers of the hub that fetching a snapshot needs."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self.server.asked.append(path)  # type: ignore[attr-defined]
        if path.startswith(f"/api/models/{MODEL['hub_id']}/revision/"):
            siblings = [{"rfilename": name} for name in FILES]
            return self._send(json.dumps({"id": MODEL["hub_id"], "sha": COMMIT, "siblings": siblings}).encode())
        if path.startswith(f"/api/models/{MODEL['hub_id']}/tree/"):
            tree = [{"type": "file", "path": name, "size": len(data), "oid": "0"} for name, data in FILES.items()]
            return self._send(json.dumps(tree).encode())
        name = path.rsplit("/", 1)[-1]
        if path == f"/{MODEL['hub_id']}/resolve/{COMMIT}/{name}" and name in FILES:
            return self._send(FILES[name])
        self.send_error(404)
        return None

    def _send(self, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.asked = []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def stage(folder: Path, port: int, **changes: str) -> subprocess.CompletedProcess[str]:
    plan = folder / "model.json"
    plan.write_text(json.dumps({**MODEL, **changes}))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HOME": str(folder / "home")}
    options = ["--plan", str(plan), "--results", str(folder / "results"), "--out", str(folder / "results/hub/x.json")]
    command = [sys.executable, str(SCRIPT), *options]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_a_model_is_fetched_once_and_found_without_a_network(hub: ThreadingHTTPServer, tmp_path: Path) -> None:
    done = stage(tmp_path, hub.server_port)
    assert done.returncode == 0, done.stderr
    note = json.loads((tmp_path / "results/hub/x.json").read_text())
    assert note["commit"] == COMMIT
    assert set(note["files_bytes"]) == {"config.json", "model.safetensors"}
    asked = len(hub.asked)  # type: ignore[attr-defined]
    wanted = "allow_patterns=['*.safetensors']"  # as vLLM asks for weights
    find = f"import huggingface_hub as h; print(h.snapshot_download('someone/small', revision='{COMMIT}', {wanted}))"
    environment = {**os.environ, **offline_variables(tmp_path / "results")}
    found = subprocess.run(
        [sys.executable, "-c", find], capture_output=True, text=True, env=environment, check=False, cwd="/"
    )
    assert found.returncode == 0, found.stderr
    folder = Path(found.stdout.strip())
    assert folder.is_relative_to(tmp_path / "results" / CACHE)
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert len(hub.asked) == asked  # type: ignore[attr-defined]


def test_a_hub_that_refuses_is_one_sentence(hub: ThreadingHTTPServer, tmp_path: Path) -> None:
    done = stage(tmp_path, hub.server_port, hub_id="someone/gone")
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
