"""The scratch studies of the workflow tests."""

import shutil
from pathlib import Path

import pytest

from tests.support.studies import Study, study

__all__ = ["study"]


@pytest.fixture(scope="session")
def measured_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a study whose small sweep is measured and drawn; nobody changes anything in it."""
    base = Study(tmp_path_factory.mktemp("measured"))
    base.run()
    return base.folder


@pytest.fixture
def measured(study: Study, measured_once: Path) -> Study:
    """Return a study whose small sweep is measured and drawn: a copy, with all times of its files."""
    shutil.copytree(measured_once, study.folder, dirs_exist_ok=True, symlinks=True)
    return study
