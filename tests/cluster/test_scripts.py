"""Scripts that `python -m memgap jobs` wrote, submitted by hand."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.studies import Study

from .slurm_cluster import SlurmCluster, run_program, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.workflow]


def test_a_script_submitted_by_hand_is_warned_of_its_limit_and_goes_on_from_the_store(
    study: Study, slurm: SlurmCluster
) -> None:
    (study.folder / "site.yaml").write_text("partition: gpu\nsave_s: 35\n")
    study.config["resources"] = {"runtime_min": 5, "mem_mb": 1000, "cpus": 1}
    study.fixed["server"] = {"step-base-ms": 150.0}
    study.fixed["batch_cap"] = [4, 1]
    study.run("staged")
    command = [sys.executable, "-m", "memgap", "jobs", "--configfile", "config.yaml", "--site", "site.yaml"]
    subprocess.run(command, cwd=study.folder, check=True, env=os.environ)
    assert slurm.squeue() == []
    (script,) = (study.folder / "results" / "jobs").glob("*.sh")
    job = _submit(script, study.folder)
    wait_for(lambda: len(study.measured_at()) == 1, "the first point should be measured")
    assert "#SBATCH --signal=B:TERM@35" in script.read_text()
    run_program("scancel", "--signal=TERM", "--batch", job)  # what Slurm does 35 s before the limit
    wait_for(lambda: slurm.job(job)["JobState"] == "FAILED", "the session should end at its warning")
    log = (study.folder / "logs" / "sessions" / f"{script.stem}.log").read_text()
    assert "stopped (signal SIGTERM); finished points are kept" in log
    first = study.measured_at()
    again = _submit(script, study.folder)
    wait_for(lambda: slurm.job(again)["JobState"] == "COMPLETED", "the rest should be measured")
    after = study.measured_at()
    assert len(after) == 2
    assert [key for key in first if after[key] != first[key]] == []


def _submit(script: Path, folder: Path) -> str:
    submitted = subprocess.run(
        ["sbatch", "--parsable", str(script)], cwd=folder, capture_output=True, text=True, check=True
    )
    return submitted.stdout.strip()
