"""Runs the workflow that goes with the package, in the working directory."""

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from memgap.commands.unlock import remove_stale_lock
from memgap.errors import UserError
from memgap.shipped import SNAKEFILE


def run_workflow(arguments: Sequence[str]) -> NoReturn:
    """Remove a killed run's lock and become Snakemake with these arguments; raises UserError where it is absent."""
    if find_spec("snakemake") is None:
        raise UserError("Snakemake is not installed beside memgap; install memgap with what it depends on.")
    remove_stale_lock(Path())
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(SNAKEFILE), *arguments]
    sys.stdout.flush()
    os.execv(command[0], command)
