"""Runs the sessions of studies, in the tests' own process or in one of their own."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from memgap.canonical import canonical_json
from memgap.datasets import store_dataset
from memgap.models import write_synthetic_model
from memgap.session import command
from memgap.session.progress import Progress
from memgap.session.run import Session
from memgap.session.watch import StopWatch
from memgap.store.points import PointStore
from memgap.study.study import Study
from tests.support.records import small_study
from tests.support.waiting import LAST_RESORT_S

SCRIPT = Path(__file__).resolve().parents[2] / "workflow/scripts/run_session.py"


def write_inputs(study: Study, results: Path) -> None:
    """Make the datasets and models of a study."""
    for key, spec in study.datasets.items():
        store_dataset(results / f"datasets/{key}.npz", spec)
    for folder, model in study.model_folders.items():
        write_synthetic_model(model, results / "models" / folder)


def run_all(study: Study, results: Path) -> str:
    """Make the datasets and models of a study of one session, and run it; returns what it said."""
    write_inputs(study, results)
    (session,) = study.sessions
    said = io.StringIO()
    Session(study.session_plan(session), results, Progress("test", said), StopWatch()).run()
    return said.getvalue()


def run_session(study: Study, tmp_path: Path) -> dict[str, Any]:
    """Measure the only point of a study below `tmp_path`/results; returns it."""
    run_all(study, tmp_path / "results")
    (key,) = study.points
    point = PointStore(tmp_path / "results/points").read(key)
    assert point is not None
    return point


class Runner:
    """A folder with everything that the one session of a study needs."""

    def __init__(self, folder: Path, study: Study) -> None:
        self.folder = folder
        (self.name,) = study.sessions
        self.plan = study.session_plan(self.name)
        self.results = folder / "results"
        write_inputs(study, self.results)

    def command(self) -> list[str]:
        """Write the plan and return the command line."""
        (self.folder / "plan.json").write_text(canonical_json(self.plan))
        return [sys.executable, str(SCRIPT), "--plan", str(self.folder / "plan.json"), "--results", str(self.results)]

    def run(self, expect: int = 0) -> str:
        """Run the session to its end; returns what it printed."""
        done = subprocess.run(self.command(), capture_output=True, text=True, check=False, timeout=LAST_RESORT_S)
        assert done.returncode == expect, done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr

    def points(self) -> dict[int, dict[str, Any]]:
        """Return the stored points by cap."""
        found = [json.loads(path.read_text()) for path in self.results.glob("points/[!.]*/point.json")]
        return {one["record"]["batch_cap"]: one for one in found}

    def written(self) -> dict[int, int]:
        """Return when each point was written."""
        keys = {cap: one["key"] for cap, one in self.points().items()}
        return {cap: (self.results / "points" / key / "point.json").stat().st_mtime_ns for cap, key in keys.items()}


def runner(folder: Path, **changes: Any) -> Runner:
    """Return a session of the small study."""
    return Runner(folder, small_study(**changes))


def start(session: Runner, *prefix: str) -> subprocess.Popen[str]:
    """Start a session whose processes can be found by their environment."""
    environment = {**os.environ, "MEMGAP_TEST_FOLDER": str(session.folder)}
    return subprocess.Popen([*prefix, *session.command()], stderr=subprocess.PIPE, text=True, env=environment)


def one_line(printed: str) -> str:
    """Return the line that is meant for the user; there has to be one and no traceback."""
    assert "Traceback" not in printed
    (line,) = [line for line in printed.splitlines() if line.startswith("memgap: ")]
    return line


def main(session: Runner, capfd: pytest.CaptureFixture[str], expect: int) -> str:
    """Run the session in this process; returns what it printed."""
    status = command.main(session.command()[2:])
    printed = capfd.readouterr().err
    assert status == expect, printed
    assert "Traceback" not in printed
    return printed
