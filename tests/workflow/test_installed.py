"""The workflow away from its checkout: in an installed wheel, as a module of another Snakefile, with conda's jobs."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest
import yaml

from memgap import __version__, cli
from memgap.engine.identity import NOT_INSTALLED, check_installed
from memgap.errors import UserError
from memgap.shipped import DOCS, LOCKS, PROFILES, QUICKSTART, ROOT, SCRIPTS, SNAKEFILE
from tests.support.studies import REPOSITORY, SNAKEMAKE, Study

pytestmark = pytest.mark.workflow

IMPORTING = """
configfile: "config.yaml"

module memgap:
    snakefile: "{snakefile}"
    config: config

use rule * from memgap as memgap_*

rule mine:
    input: "figures/fig02.csv"
    output: "mine.txt"
    shell: "wc -l {{input}} > {{output}}"
"""


def printed_by(command: list[str], folder: Path, **variables: str) -> str:
    """Run a command in a folder; returns all that it printed."""
    environment = {**os.environ, **variables}
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_rules_are_a_module_of_another_snakefile(study: Study) -> None:
    study.command()  # writes the configuration
    snakefile = REPOSITORY / "workflow/Snakefile"
    (study.folder / "Snakefile").write_text(IMPORTING.format(snakefile=snakefile))
    printed = printed_by([SNAKEMAKE, "-j1", "--dry-run", "--printshellcmds", "mine"], study.folder)
    for rule in ("mine", "memgap_figure", "memgap_session", "memgap_synthetic_model"):
        assert re.search(rf"^{rule} +1$", printed, re.MULTILINE), printed
    scripts = re.findall(r"python (\S+\.py) ", printed)
    assert scripts and {(study.folder / one).resolve().parent for one in scripts} == {SCRIPTS}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with memgap as pip installs it from a wheel, its requirements being those of this Python."""
    source, site = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("src", "workflow", "envs", "profiles", "docs", "config"):
        shutil.copytree(REPOSITORY / name, source / name, ignore=unwanted)
    for name in ("Snakefile", "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    (source / "profiles/slurm/site.yaml").write_text("account: private\n")
    pip = [*(sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"), "install", "--no-index"]
    printed_by([*pip, "--no-deps", "--no-build-isolation", "--target", str(site), str(source)], source)
    return site


def test_a_wheel_has_all_that_the_workflow_is_made_of(installed: Path) -> None:
    shipped = installed / "memgap/shipped"
    for path in (SNAKEFILE, PROFILES / "slurm/config.yaml", QUICKSTART, DOCS / "config.md", LOCKS / "engine-cpu.txt"):
        assert (shipped / path.relative_to(ROOT)).read_bytes() == path.read_bytes()
    for folder in ("rules", "scripts", "report"):
        names = {path.name for path in (ROOT / "workflow" / folder).iterdir() if path.is_file()}
        assert {path.name for path in (shipped / "workflow" / folder).iterdir() if path.is_file()} == names
    assert not list(shipped.rglob("site.yaml"))
    package = REPOSITORY / "src/memgap"
    files = {path.relative_to(package) for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert sorted(file for file in files if not (installed / "memgap" / file).exists()) == []


def test_a_study_is_made_and_planned_with_an_installed_memgap(installed: Path, tmp_path: Path) -> None:
    memgap, study = str(installed / "bin/memgap"), tmp_path / "study"
    told = printed_by([memgap, "init", "study"], tmp_path, PYTHONPATH=str(installed))
    assert "cd study" in told and "memgap run" in told
    text = (study / "config/config.yaml").read_text()
    assert yaml.safe_load(text) == yaml.safe_load(QUICKSTART.read_text())
    (page,) = re.findall(r"explained in (\S+\.md)\.$", text, re.MULTILINE)
    assert Path(page).is_relative_to(installed) and Path(page).exists()
    printed = printed_by([memgap, "run", "--dry-run", "--printshellcmds"], study, PYTHONPATH=str(installed))
    assert re.search(r"^session +1$", printed, re.MULTILINE) and "profiles/default" in printed
    scripts = {(study / one).resolve() for one in re.findall(r"python (\S+\.py) ", printed)}
    assert scripts and {one.parent for one in scripts} == {installed / "memgap/shipped/workflow/scripts"}
    assert all(one.exists() for one in scripts)


def test_a_study_that_is_there_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["init", str(tmp_path)]) == 0
    (tmp_path / "config/config.yaml").write_text("mine: 1\n")
    assert cli.main(["init", str(tmp_path)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert (tmp_path / "config/config.yaml").read_text() == "mine: 1\n"
    assert cli.main(["init", str(tmp_path / "config/config.yaml")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_without_an_engine_a_session_says_how_to_get_one() -> None:
    engine = {"adapter": "vllm", "version": NOT_INSTALLED}
    with pytest.raises(UserError, match="run `memgap install`"):
        check_installed(engine, sys.executable)
    check_installed(engine, "/opt/engine/bin/python")  # which it was given, so it is asked
    check_installed({**engine, "adapter": "mock"}, sys.executable)


def test_conda_and_pip_get_what_the_lock_is_made_from_and_conda_gets_memgap(tmp_path: Path) -> None:
    *_, pinned = yaml.safe_load((LOCKS / "workflow.yaml").read_text())["dependencies"]
    locked = (LOCKS / "workflow.txt").read_text()
    assert [one for one in pinned["pip"] if not re.search(rf"^{re.escape(one)} ", locked, re.MULTILINE)] == []
    names = re.findall(r"^([a-z][a-z-]+)", (LOCKS / "workflow.in").read_text(), re.MULTILINE)
    assert {one.partition("==")[0] for one in pinned["pip"]} == set(names) - {"setuptools"}
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    assert {re.split("[<>=]", one)[0] for one in asked} == set(names) - {"setuptools"}
    venv.create(tmp_path, with_pip=False)
    package = str(REPOSITORY / "src/memgap")
    made = {"CONDA_PREFIX": str(tmp_path), "MEMGAP_PACKAGE": package, "PYTHONPATH": ""}
    printed_by(["sh", str(LOCKS / "workflow.post-deploy.sh")], tmp_path, **made)
    ask = [str(tmp_path / "bin/python"), "-c", "import memgap; print(memgap.__version__)"]
    assert printed_by(ask, tmp_path, PYTHONPATH="").strip() == __version__
