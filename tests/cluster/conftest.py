"""A real Slurm for the tests, and the scratch studies of the workflow tests to run on it."""

import os
from collections.abc import Iterator

import pytest

from tests.support.studies import study

from .slurm_cluster import SlurmCluster, UnavailableError

__all__ = ["study"]


@pytest.fixture(scope="session")
def slurm_of_the_session() -> Iterator[SlurmCluster]:
    """Start the cluster once; where that is impossible the tests skip with the reason, or fail if it is required."""
    cluster = SlurmCluster()
    try:
        cluster.__enter__()
    except UnavailableError as reason:
        if os.environ.get("MEMGAP_REQUIRE_SLURM") == "1":
            pytest.fail(f"MEMGAP_REQUIRE_SLURM=1, but there is no Slurm here: {reason}")
        pytest.skip(f"NO SLURM, so nothing of profiles/slurm is tested: {reason}")
    yield cluster
    cluster.__exit__()


@pytest.fixture
def slurm(slurm_of_the_session: SlurmCluster) -> Iterator[SlurmCluster]:
    """Return the cluster with all nodes up and no job in it."""
    for node in slurm_of_the_session.nodes:
        slurm_of_the_session.start_node(node)
    yield slurm_of_the_session
    slurm_of_the_session.cancel_all()
