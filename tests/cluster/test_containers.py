"""Sessions in a real Apptainer container: what they find inside, and what a new, moved or renamed image makes stale."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import yaml

from memgap import __version__
from tests.support.processes import arguments
from tests.support.studies import Study, kill
from tests.support.waiting import until

from .container_image import mock_image
from .slurm_cluster import SlurmCluster

__all__ = ["mock_image"]
pytestmark = pytest.mark.cluster


@pytest.fixture
def contained(study: Study, mock_image: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """Return the small study with its engine in an image of its own folder, and a host that could get in its way."""
    image = study.folder / "engine.sif"
    os.link(mock_image, image) if mock_image.stat().st_dev == study.folder.stat().st_dev else shutil.copy(
        mock_image, image
    )
    study.config["engines"]["mock"]["image"] = str(image)
    study.config["figures"] = {}
    (study.folder / ".venv-engine/bin").mkdir(parents=True)
    (study.folder / ".venv-engine/bin/python").symlink_to("/bin/false")
    monkeypatch.setenv("MEMGAP_ENGINE_PYTHON", "/bin/false")
    monkeypatch.setenv("PYTHONPATH", str(study.folder / "poison"))
    (study.folder / "poison").mkdir()
    (study.folder / "poison/psutil.py").write_text("raise ImportError('the host got in')\n")
    return study


def run_inside(study: Study, *arguments: str) -> str:
    """Run Snakemake with containers, itself without the poisoned path."""
    command = ["env", "-u", "PYTHONPATH", *study.command("--sdm", "apptainer", *arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=study.folder, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_session_in_an_image_and_what_makes_it_stale(contained: Study) -> None:
    image = contained.folder / "engine.sif"
    contained.fixed["batch_cap"] = [1, 2]
    run_inside(contained)
    points = contained.points()
    assert {cap: point["status"] for cap, point in points.items()} == {1: "ok", 2: "ok"}
    digest = f"sha256:{hashlib.sha256(image.read_bytes()).hexdigest()}"
    for point in points.values():
        assert point["record"]["engine"]["image"] == digest
        assert point["record"]["engine"]["version"] == "auto"
        assert point["provenance"]["commands"][0][0] == "/opt/memgap/bin/python"
        assert point["provenance"]["engine_version"] == __version__
    assert str(contained.folder) not in json.dumps([point["record"] for point in points.values()])
    assert contained.processes() == []

    moved = contained.folder / "elsewhere" / "another-name.sif"
    moved.parent.mkdir()
    image.rename(moved)
    contained.config["engines"]["mock"]["image"] = str(moved)
    assert "Nothing to be done" in run_inside(contained, "--dry-run")

    moved.rename(contained.folder / "away.sif")
    contained.config["engines"]["mock"]["image_digest"] = digest
    assert "Nothing to be done" in run_inside(contained, "--dry-run")

    contained.config["engines"]["mock"]["image_digest"] = None
    shutil.copy(contained.folder / "away.sif", moved)
    with moved.open("ab") as file:
        file.write(b"a new image")
    printed = run_inside(contained, "--dry-run")
    assert "session" in printed
    assert "Nothing to be done" not in printed


def test_the_environment_inside(contained: Study, mock_image: Path) -> None:
    say = "echo $CUDA_VISIBLE_DEVICES $MEMGAP_CONFIG; command -v python; python -c 'import psutil, memgap.session.run'"
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "1", "MEMGAP_CONFIG": ".snakemake/memgap/config-x.json"}
    command = ["apptainer", "exec", "--home", str(contained.folder), str(mock_image), "bash", "-c", say]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", ".snakemake/memgap/config-x.json", "/opt/memgap/bin/python"]


def test_a_killed_driver_leaves_nothing_running_inside(contained: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH")
    contained.fixed["load"] = {"requests": 4000, "warmup_requests": 1}
    contained.config["datasets"]["short"]["requests"] = 4000
    driver = contained.start("--sdm", "apptainer")
    until(lambda: any("memgap.mock_server" in " ".join(arguments(one)) for one in contained.processes()))
    kill(driver, signal.SIGKILL)
    until(lambda: contained.processes() == [])


def test_a_slurm_job_runs_in_the_image(contained: Study, slurm: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH")
    site = contained.folder / "site.yaml"
    site.write_text(yaml.safe_dump({"partition": "gpu", "first_status_check_s": 1, "nvidia": False}))
    monkeypatch.setenv("MEMGAP_SITE", str(site))
    contained.jobs = None
    contained.fixed["batch_cap"] = [1, 2]
    before = len(slurm.jobs())
    contained.run("--profile", "profiles/slurm", "results/tables/small.csv")
    assert [job["JobState"] for job in slurm.jobs()[before:]] == ["COMPLETED"]
    points = contained.points()
    assert {cap: point["status"] for cap, point in points.items()} == {1: "ok", 2: "ok"}
    assert {point["provenance"]["commands"][0][0] for point in points.values()} == {"/opt/memgap/bin/python"}
