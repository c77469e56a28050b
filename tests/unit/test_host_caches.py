"""Where the home cannot be written, servers keep what they compile elsewhere."""

import sys
import tempfile
from pathlib import Path

import pytest

from memgap.commands import doctor
from memgap.host.caches import CACHES, HUB, own_folder, with_caches, writable
from memgap.host.supervised import Supervised

NO_HOME = "/proc/no-such-home"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_a_home_that_can_be_written_is_left_alone(tmp_path: Path) -> None:
    assert with_caches({"HOME": str(tmp_path), "X": "1"}) == {"HOME": str(tmp_path), "X": "1"}


@pytest.mark.parametrize("home", [{"HOME": NO_HOME}, {}, {"HOME": ""}, {"HOME": "/dev/null"}])
def test_others_get_folders_of_their_own(home: dict[str, str]) -> None:
    made = with_caches({**home, "TRITON_HOME": "/mine"})
    assert made["TRITON_HOME"] == "/mine" and made.keys() >= {*CACHES} and HUB not in made
    folder = Path(made["XDG_CACHE_HOME"]).parent
    assert writable(folder) and folder.stat().st_mode & 0o077 == 0
    assert with_caches(home)["XDG_CACHE_HOME"] == made["XDG_CACHE_HOME"], "the same from server to server"


def test_models_of_a_home_that_can_be_read_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".cache/huggingface").mkdir(parents=True)
    monkeypatch.setattr("memgap.host.caches.writable", lambda _: False)
    assert with_caches({"HOME": str(tmp_path)})[HUB] == str(tmp_path / ".cache/huggingface")
    assert with_caches({"HOME": str(tmp_path), HUB: "/other"})[HUB] == "/other"
    assert HUB not in with_caches({"HOME": str(tmp_path), "XDG_CACHE_HOME": "/own"})


def test_a_folder_that_is_somebody_elses_is_not_taken(tmp_path: Path) -> None:
    usual = own_folder()
    assert own_folder() == usual
    usual.chmod(0o777)
    assert own_folder() != usual
    usual.rmdir()
    usual.symlink_to(tmp_path)
    assert own_folder() != usual


def test_a_server_gets_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", NO_HOME)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    code = (
        "import os, pathlib; p = pathlib.Path(os.environ['XDG_CACHE_HOME']) / 'vllm'; p.mkdir(parents=True); print(p)"
    )
    process = Supervised([sys.executable, "-c", code], tmp_path / "log", {})
    process.wait(20)
    process.stop()
    assert (tmp_path / "log").read_text().strip().endswith("cache/vllm")


def test_the_doctor_says_what_snakemake_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", NO_HOME)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    found = doctor._home()
    assert not found.present and "export XDG_CACHE_HOME" in found.detail
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert doctor._home().present
