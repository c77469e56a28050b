# What the rules share: the expanded configuration and the names of files.
import os
import sys
from pathlib import Path

from memgap.errors import UserError
from memgap.workflow import load_study, package_path, script_path

# Rules call `python`: the one that runs Snakemake, also where its environment is not activated.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])

try:
    STUDY = load_study(config)
except UserError as error:
    raise WorkflowError(f"memgap: {error}")

CONFIG = STUDY.config


def script(name):
    """The path of an entry point, as the rules' shell sees it."""
    return script_path(workflow.basedir, name)


def figure_files():
    return [f"figures/{name}.{kind}" for name in CONFIG["figures"] for kind in ("pdf", "png", "csv")]


def figure_sweeps():
    return list(dict.fromkeys(settings["sweep"] for settings in CONFIG["figures"].values()))


def advice_files():
    return [f"results/advisor/{model}.yaml" for sweep in figure_sweeps() for model in STUDY.models_of(sweep)]


def table_files():
    return [f"results/tables/{sweep}.{kind}" for sweep in STUDY.sweeps for kind in ("parquet", "csv")]


def say_where_to_look():
    print("\nfigures: " + ", ".join(f"figures/{name}.pdf" for name in CONFIG["figures"]))
    print("advice:  " + ", ".join(advice_files()))
    print("numbers: " + ", ".join(f"results/tables/{sweep}.csv" for sweep in STUDY.sweeps))


def figure_module(name):
    """The module that draws a figure, as an input of its rule."""
    return package_path(f"figures/{name}.py")
