"""What a session checks about the container that it runs in."""

import hashlib
import os
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from memgap import __version__
from memgap.errors import UserError

VERSION_VARIABLE = "MEMGAP_WORKFLOW_VERSION"
"""The memgap that started the job, as the job sees it; see `workflow_version`."""
MARKS = ("APPTAINER_CONTAINER", "SINGULARITY_CONTAINER", "MEMGAP_CONTAINER")
"""Variables that a container runtime sets; the last one is set by this project's own images."""


def workflow_version() -> str:
    """Return memgap's version with the state of its configuration's schema: what both sides have to agree on."""
    schema = files("memgap.config").joinpath("schema.yaml").read_bytes()
    return f"{__version__}-{hashlib.sha256(schema).hexdigest()[:8]}"


def check_same_memgap(environment: Mapping[str, str] = os.environ) -> None:
    """Raise UserError where the job, as in an older image, runs another memgap than the workflow that started it."""
    mine = workflow_version()
    workflow = environment.get(VERSION_VARIABLE, mine)
    if workflow != mine:
        raise UserError(
            f"the session runs memgap {mine}, but the workflow is {workflow}; build the engine's image again, or use "
            "the checkout that it was built from."
        )


def check_container(engine: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> None:
    """Raise UserError where points of an image would be measured outside one.

    `engine` is that part of a point's record.
    """
    if engine["image"] is not None and not any(environment.get(mark) for mark in MARKS):
        raise UserError(
            f"engines.{engine['name']}.image is given, but the session runs on the host; run Snakemake with "
            "`--sdm apptainer` (profiles/slurm has it), or remove the image."
        )
