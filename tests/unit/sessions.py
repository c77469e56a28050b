"""Runs a session of a study in the tests' own process."""

import io
from pathlib import Path
from typing import Any

from memgap.datasets import store_dataset
from memgap.models import write_synthetic_model
from memgap.session.progress import Progress
from memgap.session.run import Session
from memgap.session.watch import StopWatch
from memgap.store.points import PointStore
from memgap.study.study import Study


def run_all(study: Study, results: Path) -> str:
    """Make the datasets and models of a study of one session, and run it; returns what it said."""
    for key, spec in study.datasets.items():
        store_dataset(results / f"datasets/{key}.npz", spec)
    for folder, model in study.model_folders.items():
        write_synthetic_model(model, results / "models" / folder)
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
