"""What a session checks about the container that it runs in."""

import os
from collections.abc import Mapping
from typing import Any

from memgap import __version__
from memgap.errors import UserError

VERSION_VARIABLE = "MEMGAP_WORKFLOW_VERSION"
"""The version of the memgap that started the job, as the job sees it."""
MARKS = ("APPTAINER_CONTAINER", "SINGULARITY_CONTAINER", "MEMGAP_CONTAINER")
"""Variables that a container runtime sets; the last one is set by this project's own images."""


def check_container(engine: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> None:
    """Check that points of an image are measured in one, by the same memgap as the workflow's.

    `engine` is that part of a point's record. Raises UserError.
    """
    if engine["image"] is None:
        return
    if not any(environment.get(mark) for mark in MARKS):
        raise UserError(
            f"engines.{engine['name']}.image is given, but the session runs on the host; run Snakemake with "
            "`--sdm apptainer` (profiles/slurm has it), or remove the image."
        )
    workflow = environment.get(VERSION_VARIABLE, __version__)
    if workflow != __version__:
        raise UserError(
            f"the image of engines.{engine['name']} holds memgap {__version__}, but the workflow is {workflow}; "
            "build the image again, or use the memgap that it was built from."
        )
