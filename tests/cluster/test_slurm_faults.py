"""A bad day on a real Slurm: whatever ends a job or its driver, finished points stay and each is measured once."""

import json
import os
import signal
import subprocess
from collections.abc import Callable

import pytest

from memgap.unlock import remove_stale_lock
from tests.workflow.conftest import Study, kill

from .slurm_cluster import SlurmCluster, run_program, wait_for

pytestmark = [pytest.mark.workflow, pytest.mark.cluster]

Until = Callable[[Callable[[], bool], float], None]
PATIENCE_S = 120.0
ON_SLURM = (
    *("--executor", "slurm", "--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "2"),
    *("--default-resources", "slurm_partition=gpu", "mem_mb=500", "runtime=5", "--latency-wait", "10"),
)


@pytest.fixture
def slow(study: Study, slurm: SlurmCluster) -> Study:
    """Return a study of three points, the last of which takes long enough to be hit; no figures."""
    study.fixed["server"] = {"step-base-ms": 50.0}
    study.fixed["batch_cap"] = [8, 4, 1]
    study.config["figures"] = {}
    study.config["resources"] = {"mem_mb": 500}
    return study


def start(study: Study, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a driver that submits to Slurm."""
    return study.start("results/tables/small.csv", *ON_SLURM, *arguments)


def printed(study: Study) -> str:
    """Return what the last driver printed."""
    return (study.folder / "driver.log").read_text()


def in_the_last_point(study: Study, slurm: SlurmCluster) -> str:
    """Wait until a job measures the study's last point; returns its id."""
    wait_for(lambda: len(study.points()) == 2, PATIENCE_S, "the first two points are never measured")
    (job,) = slurm.running()
    return job


def all_measured_once(study: Study, before: dict[str, int]) -> None:
    """Check that all points are there, and those that were there `before` were left alone."""
    after = study.measured_at()
    assert {point["status"] for point in study.points().values()} == {"ok"}
    assert len(after) == 3
    assert {key for key in before if after[key] != before[key]} == set()
    assert list((study.folder / "results/leases").iterdir()) == []


def test_scancel_in_the_middle_of_a_point(slow: Study, slurm: SlurmCluster, until: Until) -> None:
    driver = start(slow, "--retries", "1")
    job = in_the_last_point(slow, slurm)
    before = slow.measured_at()
    slurm.scancel(job)
    wait_for(lambda: slurm.job(job)["JobState"] == "CANCELLED", PATIENCE_S, "the job is not cancelled")
    assert driver.wait(PATIENCE_S) == 0, printed(slow)
    all_measured_once(slow, before)
    until(lambda: slow.processes() == [], 60)


def test_a_time_limit_in_the_middle_of_a_point(slow: Study, slurm: SlurmCluster, until: Until) -> None:
    driver = start(slow, "--retries", "1")
    job = in_the_last_point(slow, slurm)
    before = slow.measured_at()
    # limits are whole minutes; a running job's end can be moved to the second
    run_program("scontrol", "update", f"JobId={job}", "EndTime=now")
    wait_for(lambda: slurm.job(job)["JobState"] == "TIMEOUT", PATIENCE_S, "the job does not reach its time limit")
    assert driver.wait(PATIENCE_S) == 0, printed(slow)
    assert "TIMEOUT" in printed(slow)
    all_measured_once(slow, before)
    until(lambda: slow.processes() == [], 60)


def test_a_node_that_fails_in_the_middle_of_a_point(slow: Study, slurm: SlurmCluster, until: Until) -> None:
    driver = start(slow, "--retries", "1")
    job = in_the_last_point(slow, slurm)
    before, node = slow.measured_at(), slurm.job(job)["NodeList"]
    slurm.stop_node(node)
    assert driver.wait(PATIENCE_S) == 0, printed(slow)
    assert slurm.jobs()[-1]["NodeList"] != node
    all_measured_once(slow, before)
    until(lambda: slow.processes() == [], 60)


def test_a_driver_that_is_interrupted_cancels_its_jobs(slow: Study, slurm: SlurmCluster, until: Until) -> None:
    driver = start(slow)
    job = in_the_last_point(slow, slurm)
    before = slow.measured_at()
    kill(driver, signal.SIGINT)
    wait_for(lambda: slurm.job(job)["JobState"] == "CANCELLED", PATIENCE_S, "the job is not cancelled")
    until(lambda: slow.processes() == [], 60)
    assert slow.measured_at() == before
    assert start(slow).wait(PATIENCE_S) == 0, printed(slow)
    all_measured_once(slow, before)


def test_a_driver_that_is_terminated_lets_its_job_end(slow: Study, slurm: SlurmCluster, until: Until) -> None:
    driver = start(slow)
    job = in_the_last_point(slow, slurm)
    before = slow.measured_at()
    os.kill(driver.pid, signal.SIGTERM)
    driver.wait(PATIENCE_S)
    wait_for(lambda: slurm.job(job)["JobState"] == "COMPLETED", PATIENCE_S, "the job does not end")
    all_measured_once(slow, before)
    assert start(slow).wait(PATIENCE_S) == 0, printed(slow)
    all_measured_once(slow, before)


def test_a_driver_that_is_killed_and_started_again_does_not_measure_what_is_being_measured(
    slow: Study, slurm: SlurmCluster, until: Until
) -> None:
    slow.fixed["load"]["requests"] = 24
    driver = start(slow)
    job = in_the_last_point(slow, slurm)
    kill(driver, signal.SIGKILL)
    before = slow.measured_at()
    assert slurm.running() == [job]
    assert remove_stale_lock(slow.folder)
    second = start(slow)
    wait_for(lambda: len(slurm.running()) == 2, PATIENCE_S, "no second job is started beside the first")
    (log,) = (slow.folder / "logs/sessions").iterdir()
    said = "is being measured by process"
    until(lambda: said in log.read_text(), PATIENCE_S)
    assert f"Slurm job {job}" in log.read_text()
    assert len(slow.points()) == 2
    assert second.wait(PATIENCE_S) == 0, printed(slow)
    all_measured_once(slow, before)
    assert "all 3 points are in the store already" in log.read_text()
    assert {one["JobState"] for one in slurm.jobs()[-2:]} == {"COMPLETED"}
    (outcome,) = (slow.folder / "results/sessions").glob("*.json")
    assert [point["status"] for point in json.loads(outcome.read_text())["points"]] == ["ok"] * 3
