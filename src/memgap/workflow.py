"""What the Snakefile needs of the package."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memgap.config.load import check_config
from memgap.sweep.study import Study, expand_study


def load_study(config: Mapping[str, Any]) -> Study:
    """Check and expand a configuration; raises UserError."""
    return expand_study(check_config(config))


def script_path(workflow_folder: str, name: str) -> str:
    """Return the path of workflow/scripts/`name` relative to the working directory."""
    return os.path.relpath(Path(workflow_folder) / "workflow" / "scripts" / name)


def package_path(name: str) -> str:
    """Return the path of a file of this package relative to the working directory."""
    return os.path.relpath(Path(__file__).parent / name)
