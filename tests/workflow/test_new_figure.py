"""A new figure is one new file: it is drawn, has its keys in the configuration and its section in the docs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.studies import REPOSITORY, Study

pytestmark = pytest.mark.workflow

MODULE = '''"""How many points there are, by cap."""

from memgap.figures.footer import write_provenance
from memgap.figures.spec import FigureSpec
from memgap.figures.style import new_figure

FIGURE = FigureSpec(
    name="counts",
    title="Points by cap",
    reads=("sweep.points",),
    caption="""
A bar a cap: how many points were measured.
""",
)


def draw(inputs):
    """Return the figure and its numbers."""
    data = inputs["sweep.points"].groupby("batch_cap", as_index=False).size()
    figure, (axes,) = new_figure(1)
    axes.bar(data["batch_cap"], data["size"])
    write_provenance(figure, inputs["sweep.points"])
    return figure, data
'''


def test_a_new_figure_is_one_new_file(study: Study, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for part in ("src", "workflow", "envs", "config"):
        shutil.copytree(REPOSITORY / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "Snakefile", copy)
    (copy / "src/memgap/figures/counts.py").write_text(MODULE)
    study.config["figures"] = {"counts": {"sweep": "small"}}
    command = study.command("figures/counts.pdf")
    command[command.index("--snakefile") + 1] = str(copy / "Snakefile")
    environment = {**os.environ, "PYTHONPATH": str(copy / "src")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=copy, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (study.folder / "figures/counts.csv").read_text() == "batch_cap,size\n1,1\n2,1\n4,1\n"
    assert (study.folder / "figures/counts.png").stat().st_size > 0
    said = subprocess.run(
        [
            *(sys.executable, "-c"),
            "from memgap.config.load import schema; from memgap.tables.reference import sections\n"
            "import yaml\n"
            "print(yaml.safe_dump([schema()['properties']['figures']['properties']['counts'], sections()]))",
        ],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    keys, page = yaml.safe_load(said.stdout)
    assert keys["required"] == ["sweep"] and keys["description"] == "Points by cap."
    assert "## Points by cap\n\n`figures/counts` (`.pdf`, `.png`, `.csv`)\n\nA bar a cap: how many points" in page
