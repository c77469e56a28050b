"""Says where the results of a configuration are."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from memgap.config.files import read_config_files
from memgap.shipped import DOCS
from memgap.study.study import Study
from memgap.workflow import load_study
from memgap.workflow.targets import all_tables


def print_where(configfiles: Sequence[Path]) -> None:
    """Print the files to look at first; raises UserError for a broken configuration."""
    tell_where(load_study(read_config_files(configfiles)))


def tell_where(study: Study) -> None:
    """Print the files of a study to look at first."""
    models = dict.fromkeys(model for sweep in study.figure_sweeps() for model in study.models_of(sweep))
    found = {
        "start": [one.outputs["page"] for one in all_tables(study) if one.name == "explore"],
        "figures": [f"figures/{name}.pdf" for name in study.config["figures"]],
        "advice": [f"results/advisor/{model}.yaml" for model in models],
    }
    for name, group in study.groups.items():
        for what, files in group.kind.shown(name).items():
            found.setdefault(what, []).extend(files)
    for what, files in found.items():
        if files:
            print(f"{what:<8} " + "  ".join(files))
    page = f"{program()} run --report report.html"
    print(f"how to read them: {os.path.relpath(DOCS / 'figures.md')}; a page of everything: {page}")


def program(folder: Path = Path()) -> str:
    """Return how `memgap` is called from a folder: by its whole path, unless its environment is in there."""
    beside = Path(sys.executable).parent / "memgap"
    return os.path.relpath(beside, folder) if beside.is_relative_to(folder.absolute()) else str(beside)
