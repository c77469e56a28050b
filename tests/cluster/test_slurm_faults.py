"""A bad day on a real Slurm: whatever ends a job or its driver, finished points stay and each is measured once."""

import contextlib
import json
import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.support.processes import arguments
from tests.support.studies import Study, kill
from tests.support.waiting import LAST_RESORT_S, until

from .slurm_cluster import SlurmCluster, run_program, wait_for

pytestmark = [pytest.mark.workflow, pytest.mark.cluster]

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
    wait_for(lambda: len(study.points()) == 2, "the first two points are never measured")
    (job,) = slurm.running()
    return job


def samplers(study: Study) -> bool:
    """Whether a point is being measured: a sampler runs."""
    for process in study.processes():
        with contextlib.suppress(psutil.Error):
            if "memgap.telemetry.sampler" in process.cmdline():
                return True
    return False


def session_process(study: Study) -> psutil.Process:
    """Return the only running session of the study."""
    (session,) = [one for one in study.processes() if Path("".join(arguments(one)[1:2])).name == "run_session.py"]
    return session


def all_measured_once(study: Study, before: dict[str, int]) -> None:
    """Check that all points are there, and those that were there `before` were left alone."""
    after = study.measured_at()
    assert {point["status"] for point in study.points().values()} == {"ok"}
    assert len(after) == 3
    assert {key for key in before if after[key] != before[key]} == set()
    assert list((study.folder / "results/leases").iterdir()) == []


def test_scancel_and_then_a_time_limit_in_the_middle_of_a_point(slow: Study, slurm: SlurmCluster) -> None:
    driver = start(slow, "--retries", "2")
    first = in_the_last_point(slow, slurm)
    before = slow.measured_at()
    slurm.scancel(first)
    wait_for(lambda: slurm.job(first)["JobState"] == "CANCELLED", "the job is not cancelled")
    wait_for(lambda: samplers(slow) and len(slurm.running()) == 1, "no second job measures")
    (second,) = slurm.running()
    assert second != first
    # limits are whole minutes, but a running job's end can be moved; Slurm looks at it every half minute, until when
    # the session stands still in its point
    session = session_process(slow)
    session.suspend()
    run_program("scontrol", "update", f"JobId={second}", "EndTime=now")
    wait_for(lambda: slurm.job(second)["JobState"] == "TIMEOUT", "the job does not reach its time limit")
    assert slow.measured_at() == before
    with contextlib.suppress(psutil.NoSuchProcess):
        session.resume()
    assert driver.wait(LAST_RESORT_S) == 0, printed(slow)
    assert "CANCELLED" in printed(slow) and "TIMEOUT" in printed(slow)
    all_measured_once(slow, before)
    until(lambda: slow.processes() == [])


def test_a_node_that_fails_in_the_middle_of_a_point(slow: Study, slurm: SlurmCluster) -> None:
    driver = start(slow, "--retries", "1")
    job = in_the_last_point(slow, slurm)
    before, node = slow.measured_at(), slurm.job(job)["NodeList"]
    slurm.stop_node(node)
    # Slurm queues the job again and lets two minutes pass before it may start
    wait_for(lambda: slurm.job(job)["JobState"] == "PENDING", "the job is not queued again")
    run_program("scontrol", "update", f"JobId={job}", "StartTime=now")
    assert driver.wait(LAST_RESORT_S) == 0, printed(slow)
    assert slurm.jobs()[-1]["NodeList"] != node
    all_measured_once(slow, before)
    until(lambda: slow.processes() == [])


def test_a_driver_that_is_interrupted_cancels_its_jobs(slow: Study, slurm: SlurmCluster) -> None:
    driver = start(slow)
    job = in_the_last_point(slow, slurm)
    before = slow.measured_at()
    kill(driver, signal.SIGINT)
    wait_for(lambda: slurm.job(job)["JobState"] == "CANCELLED", "the job is not cancelled")
    until(lambda: slow.processes() == [])
    assert slow.measured_at() == before
    assert start(slow).wait(LAST_RESORT_S) == 0, printed(slow)
    all_measured_once(slow, before)


def test_a_driver_that_is_terminated_lets_its_job_end(slow: Study, slurm: SlurmCluster) -> None:
    driver = start(slow)
    job = in_the_last_point(slow, slurm)
    before = slow.measured_at()
    os.kill(driver.pid, signal.SIGTERM)
    driver.wait(LAST_RESORT_S)
    wait_for(lambda: slurm.job(job)["JobState"] == "COMPLETED", "the job does not end")
    all_measured_once(slow, before)
    assert start(slow).wait(LAST_RESORT_S) == 0, printed(slow)
    all_measured_once(slow, before)


def test_a_driver_that_is_killed_and_started_again_does_not_measure_what_is_being_measured(
    slow: Study, slurm: SlurmCluster
) -> None:
    driver = start(slow)
    job = in_the_last_point(slow, slurm)
    # the session stands still as long as this test needs: it lives, but shows no life in its lease
    session = session_process(slow)
    session.suspend()
    kill(driver, signal.SIGKILL)
    before = slow.measured_at()
    assert slurm.running() == [job]
    slow.run("--unlock")
    second = start(slow)
    wait_for(lambda: len(slurm.running()) == 2, "no second job is started beside the first")

    def log() -> str:
        # Snakemake removes the first job's log when it starts the second one
        return "".join(path.read_text() for path in (slow.folder / "logs/sessions").glob("*.log"))

    until(lambda: "is being measured by process" in log())
    assert f"Slurm job {job}" in log()
    assert len(slow.points()) == 2
    session.resume()
    assert second.wait(LAST_RESORT_S) == 0, printed(slow)
    all_measured_once(slow, before)
    assert "all 3 points are in the store already" in log()
    assert {one["JobState"] for one in slurm.jobs()[-2:]} == {"COMPLETED"}
    (outcome,) = (slow.folder / "results/sessions").glob("*.json")
    assert [point["status"] for point in json.loads(outcome.read_text())["points"]] == ["ok"] * 3
