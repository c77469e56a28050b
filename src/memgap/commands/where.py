"""Says where the results of a configuration are."""

from collections.abc import Sequence
from pathlib import Path

from memgap.config.files import read_config_files
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
    print("how to read them: docs/figures.md; a page of everything: .venv/bin/snakemake --report report.html")
