"""`snakemake --profile profiles/slurm` on a real Slurm, with the simulated engine."""

from pathlib import Path

import pytest
import yaml

from .conftest import Study
from .slurm_cluster import SlurmCluster

pytestmark = [pytest.mark.cluster, pytest.mark.workflow]

PROFILE = ("--profile", "profiles/slurm")
QUICK = {"partition": "gpu", "first_status_check_s": 1}


@pytest.fixture(autouse=True)
def site(study: Study, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the study run with a site file that looks at jobs often."""
    path = study.folder / "site.yaml"
    path.write_text(yaml.safe_dump(QUICK))
    monkeypatch.setenv("MEMGAP_SITE", str(path))
    study.jobs = None
    return path


def test_one_figure_is_one_gpu_job_and_the_rest_runs_on_the_driver(study: Study, slurm: SlurmCluster, site: Path) -> None:
    before = len(slurm.jobs())
    site.write_text(
        yaml.safe_dump({**QUICK, "account": "proj0815", "gpu_model": "h200", "partition": "short", "save_s": 600})
    )
    study.config["resources"] = {"runtime_min": 20, "mem_mb": 1200, "cpus": 3}
    printed = study.run(*PROFILE, "figures/fig10.pdf")
    assert (study.folder / "figures/fig10.pdf").exists()
    jobs = slurm.jobs()[before:]
    assert [job["JobState"] for job in jobs] == ["COMPLETED"], printed
    job = jobs[0]
    assert (job["Account"], job["Partition"], job["TimeLimit"]) == ("proj0815", "short", "00:20:00")
    assert (job["TresPerJob"], job["CPUs/Task"], job["MinMemoryNode"]) == ("gres:gpu:h200:1", "3", "1200M")
    assert job["NumNodes"] == "1"
    assert {point["status"] for point in study.points().values()} == {"ok"}
