"""What the Snakefile needs of the package."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memgap.canonical import content_key
from memgap.config.load import check_config
from memgap.containers.digest import pin_images
from memgap.containers.inside import VERSION_VARIABLE, workflow_version
from memgap.containers.jobs import prepare_images
from memgap.declared import PACKAGE
from memgap.shipped import SCRIPTS
from memgap.store.atomic import keep_others_from_writing, write_text
from memgap.study.sizing import fit_sessions
from memgap.study.study import Study, expand_study
from memgap.warm.driver import claim
from memgap.workflow.targets import check_paths

SNAPSHOTS = Path(".snakemake/memgap")
RESULTS = Path("results")


def load_study(config: Mapping[str, Any]) -> Study:
    """Check and expand a configuration, images by their digest, sessions sized as it asks; raises UserError."""
    checked = check_config(config)
    pin_images(checked["engines"])
    study = fit_sessions(expand_study(checked), RESULTS)
    check_paths(study)
    return study


def snapshot(study: Study) -> Path:
    """Keep the checked configuration in a file named by its content, for the jobs to read; returns its path."""
    path = SNAPSHOTS / f"config-{content_key(study.config)}.json"
    if not path.exists():
        write_text(path, json.dumps(study.config, allow_nan=False) + "\n")  # in the order written: points follow it
    return path


def prepare_jobs(study: Study) -> None:
    """Set what jobs find in their environment: the configuration, this Python as `python` (not in containers), the
    package (for environments of conda), this process as their driver (see `memgap.warm`), a backend that draws to
    files whatever a notebook chose, and a umask that lets not everybody write.

    Jobs expand the configuration again and take their plan from it, so that no plan has to fit into a command line.
    """
    keep_others_from_writing()
    os.environ["MEMGAP_CONFIG"] = str(snapshot(study))
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    os.environ["MEMGAP_PACKAGE"] = str(PACKAGE.resolve())
    os.environ[VERSION_VARIABLE] = workflow_version()
    os.environ["MPLBACKEND"] = "Agg"
    claim(os.environ)
    records = (point.record for point in study.points.values())
    prepare_images(study.config["engines"], records, SCRIPTS, os.environ)


def script(name: str) -> str:
    """Return the path of an entry point relative to the working directory, as the rules' shell sees it.

    It is the package's own and not one beside the Snakefile, which may be a module that was taken from elsewhere.
    """
    return os.path.relpath(SCRIPTS / name)
