"""Recorded data: exported thin, restored whole, never in place of an own measurement."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from memgap.collect.table import collect
from memgap.config.files import read_config_files
from memgap.errors import UserError
from memgap.figures.provenance import provenance_line
from memgap.recorded.compare import comparison
from memgap.recorded.export import TELEMETRY_ROWS, export
from memgap.recorded.files import all_points
from memgap.store.points import PointStore
from memgap.sweep.stop import Seen, choose
from memgap.sweep.study import Study
from memgap.workflow import load_study

from .records import small_config
from .sessions import run_all

CHECKOUT = Path(__file__).resolve().parents[2]
PROFILE = {"after_s": 0.1, "seconds": 0.2}


def config(**changes: Any) -> dict[str, Any]:
    """Return a study of two caps of a slow enough server."""
    return small_config(batch_cap=[2, 4], server={"step-base-ms": 15.0}, load={"requests": 24}, **changes)


def restored_study(recorded: Path, **changes: Any) -> Study:
    """Return the same study, drawn from recorded data."""
    return load_study({**config(**changes), "recorded": str(recorded)})


def test_a_study_goes_out_and_comes_back(tmp_path: Path) -> None:
    study = load_study(config(profile=PROFILE))
    run_all(study, tmp_path / "first")
    assert export(tmp_path / "first", tmp_path / "study") == 2
    assert export(tmp_path / "first", tmp_path / "study") == 2, "again changes nothing"
    assert len(list(all_points(tmp_path / "study"))) == 2
    said = run_all(restored_study(tmp_path / "study", profile=PROFILE), tmp_path / "second")
    assert "2 of 2 points from the recorded data" in said
    before, after = (
        collect(study.sweep_plan("small"), tmp_path / name / "points").drop(columns="source")
        for name in ("first", "second")
    )
    pd.testing.assert_frame_equal(before, after)
    folder = tmp_path / "second/points" / next(iter(study.points))
    assert 0 < len(pd.read_csv(folder / "telemetry.csv.gz")) <= TELEMETRY_ROWS
    assert pd.read_csv(folder / "kernels.csv.gz")["start_s"].max() < 0.05
    table = collect(study.sweep_plan("small"), tmp_path / "second/points")
    assert "recorded data" in provenance_line(table)


def test_recorded_commands_hold_no_path_of_the_machine(tmp_path: Path) -> None:
    run_all(load_study(config()), tmp_path / "first")
    export(tmp_path / "first", tmp_path / "study")
    for point in all_points(tmp_path / "study"):
        assert not any(part.startswith("/") for part in point["provenance"]["commands"][0])


def test_own_measurements_stay_and_are_compared(tmp_path: Path) -> None:
    study = load_study(config())
    run_all(study, tmp_path / "first")
    export(tmp_path / "first", tmp_path / "study")
    key = next(iter(study.points))
    own = PointStore(tmp_path / "first/points").read(key)
    run_all(restored_study(tmp_path / "study"), tmp_path / "first")
    assert PointStore(tmp_path / "first/points").read(key) == own
    found = comparison(tmp_path / "first", tmp_path / "study")
    assert len(found) == 2
    assert found["total_throughput_tok_s_ratio"].tolist() == [1.0, 1.0]
    run_all(restored_study(tmp_path / "study"), tmp_path / "second")
    assert comparison(tmp_path / "second", tmp_path / "study").empty, "restored points are no measurement"


def test_measuring_replaces_what_was_restored(tmp_path: Path) -> None:
    run_all(load_study(config()), tmp_path / "first")
    export(tmp_path / "first", tmp_path / "study")
    run_all(restored_study(tmp_path / "study"), tmp_path / "second")
    said = run_all(load_study(config()), tmp_path / "second")
    assert "2 points to measure" in said
    assert all("recorded" not in json.loads(path.read_text()) for path in (tmp_path / "second").rglob("point.json"))


def test_a_missing_folder_and_a_damaged_file_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder with recorded data"):
        run_all(restored_study(tmp_path / "nothing"), tmp_path / "results")
    study = restored_study(tmp_path)
    (tmp_path / f"{next(iter(study.sessions))}.jsonl").write_text("{oops\n")
    with pytest.raises(UserError, match="line 1: no recorded point"):
        run_all(study, tmp_path / "results")


def test_the_recorded_study_has_every_point_of_its_configuration() -> None:
    """A change of what a point's record holds changes its key, and then the recorded data have to follow."""
    study = load_study(read_config_files([CHECKOUT / "config/recorded.yaml"]))
    recorded = {point["key"]: point for point in all_points(CHECKOUT / "recorded/h200")}
    for session in study.sessions:
        plan = study.session_plan(session)
        seen = {key: Seen.of(point) for key, point in recorded.items()}
        assert choose(plan["points"], plan["stop"], seen).wanted == []
    for point in recorded.values():
        assert point["status"] == "ok"
        assert point["hardware"]["gpu_name"] == "NVIDIA H200"
        assert point["provenance"]["git_commit"] and "dirty" not in point["provenance"]["git_commit"]
        assert point["engine"]["version"] == "0.26.0"
    assert yaml.safe_load((CHECKOUT / "config/recorded.yaml").read_text())["recorded"] == "recorded/h200"
