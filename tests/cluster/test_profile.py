"""`snakemake --profile profiles/slurm` on a real Slurm, with the simulated engine."""

from pathlib import Path

import pytest
import yaml

from tests.support.processes import arguments
from tests.support.studies import Study
from tests.support.waiting import LAST_RESORT_S

from .slurm_cluster import SlurmCluster, run_program, wait_for

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


def test_one_figure_is_one_gpu_job_and_the_rest_runs_on_the_driver(
    study: Study, slurm: SlurmCluster, site: Path
) -> None:
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


def test_a_session_saves_before_its_time_limit_and_gets_more_time(
    study: Study, slurm: SlurmCluster, site: Path
) -> None:
    before = len(slurm.jobs())
    site.write_text(yaml.safe_dump({**QUICK, "save_s": 35}))
    study.config["resources"] = {"runtime_min": 3, "max_runtime_min": 5}
    study.fixed["server"] = {"step-base-ms": 150.0}
    study.fixed["batch_cap"] = [4, 2, 1]
    driver = study.start(*PROFILE, "results/tables/small.csv")
    try:
        wait_for(lambda: len(study.measured_at()) == 1, "the first point should be measured")
        # a minute is Slurm's least time limit: this brings the warning nearer, whatever the start took
        run_program("scontrol", "update", f"JobId={slurm.running()[0]}", "TimeLimit=1")
        # FAILED: it ended at the warning; TIMEOUT: on a machine so busy that a minute was over before the first point
        ends = {"FAILED", "TIMEOUT"}
        ended = "the session should end at its warning"
        wait_for(lambda: bool(ends & {job["JobState"] for job in slurm.jobs()[before:]}), ended)
        first = study.measured_at()
        assert 1 <= len(first) < 3
        assert not [one for one in study.processes() if "memgap.mock_server" in arguments(one)]
        assert driver.wait(LAST_RESORT_S) == 0, (study.folder / "driver.log").read_text()
    finally:
        driver.kill()
    after = study.measured_at()
    assert {point["status"] for point in study.points().values()} == {"ok"}
    assert len(after) == 3
    assert [key for key in first if after[key] != first[key]] == []
    jobs = slurm.jobs()[before:]
    assert [job["TimeLimit"] for job in jobs] == ["00:01:00", "00:05:00"]
    assert jobs[0]["JobState"] in ends and jobs[1]["JobState"] == "COMPLETED"


def test_sessions_go_as_one_array_and_ask_for_the_gpus_of_their_server(study: Study, slurm: SlurmCluster) -> None:
    before = len(slurm.jobs())
    study.fixed.update(batch_cap=[1, 2], cap_side="server")
    study.fixed["server"] = {"step-base-ms": 1.0, "tensor-parallel-size": 2}
    study.run(*PROFILE, "--slurm-array-jobs", "session", "results/tables/small.csv")
    jobs = slurm.jobs()[before:]
    assert [job["JobState"] for job in jobs] == ["COMPLETED", "COMPLETED"]
    assert len({job["ArrayJobId"] for job in jobs}) == 1
    assert {job["TresPerJob"] for job in jobs} == {"gres:gpu:2"}
    assert {point["status"] for point in study.points().values()} == {"ok"}
