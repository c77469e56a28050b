"""The test bed itself: GPUs are handed out once, a node can fail and come back."""

import pytest

from .slurm_cluster import SlurmCluster, run_program, wait_for

pytestmark = pytest.mark.cluster


def test_two_jobs_on_a_node_get_different_gpus(slurm: SlurmCluster) -> None:
    jobs = [_submit("echo gpu=$CUDA_VISIBLE_DEVICES; sleep 600", "--gpus=1", "--nodelist=node1") for _ in range(3)]
    wait_for(lambda: len(slurm.running()) == 2, "two of three jobs should run")
    assert [slurm.job(job)["JobState"] for job in jobs] == ["RUNNING", "RUNNING", "PENDING"]
    slurm.scancel(jobs[0])
    wait_for(lambda: slurm.job(jobs[2])["JobState"] == "RUNNING", "the third job should get the freed GPU")


def test_a_node_that_fails_takes_its_job_along_and_comes_back(slurm: SlurmCluster) -> None:
    job = _submit("sleep 600", "--gpus=1", "--no-requeue", "--nodelist=node1")
    wait_for(lambda: slurm.running() == [job], "the job should run")
    slurm.stop_node("node1")
    wait_for(lambda: slurm.job(job)["JobState"] == "NODE_FAIL", "the job should end with its node")
    assert slurm.nodes_up() == {"node2"}
    slurm.start_node("node1")
    assert slurm.nodes_up() == {"node1", "node2"}


def _submit(script: str, *options: str) -> str:
    return run_program("sbatch", "--parsable", "--output=/dev/null", "--mem=100", *options, f"--wrap={script}").strip()
