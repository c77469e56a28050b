"""Restarts on the simulated engine: three windows, two starts by phase, one table a question, and the figure."""

from pathlib import Path
from typing import Any

import pytest

from memgap.config.load import check_config
from memgap.errors import UserError
from memgap.figures.restart import draw
from memgap.host.startup_phases import StartupPhases
from memgap.kinds.registry import kind_of
from memgap.kinds.restart import RESTART, WINDOWS
from memgap.kinds.restart.tables import make
from memgap.store.points import PointStore
from memgap.study.plan import plan_of
from memgap.study.study import Study, expand_study
from memgap.tables.inputs import Inputs
from tests.support.records import small_config
from tests.support.sessions import run_all


def restarts(**changes: Any) -> Study:
    config = small_config()
    fixed = {**config.pop("sweeps")["small"]["fixed"], "batch_cap": 2, **changes}
    return expand_study(check_config({**config, "restarts": {"again": {"fixed": fixed}}}))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Path, str]:
    study, results = restarts(), tmp_path_factory.mktemp("restart") / "results"
    return study, results, run_all(study, results)


def test_a_point_has_three_windows_and_both_starts(measured: tuple[Study, Path, str]) -> None:
    study, results, said = measured
    ((key, point),) = study.points.items()
    stored = PointStore(results / "points").read(key)
    assert stored is not None
    assert stored["status"] == "ok"
    assert kind_of(stored["record"]) is RESTART
    assert list(stored["windows"]) == list(WINDOWS)
    assert [[phase["phase"] for phase in one["phases"]] for one in stored["starts"]] == [["process", "ready"]] * 2
    for start in stored["starts"]:
        assert 0 < sum(phase["duration_s"] for phase in start["phases"]) <= start["start_s"]
    assert all(stored["summary"][f"{window}_requests_completed"] == 6 for window in WINDOWS)
    assert (RESTART.measured_s(stored) or 0) > stored["starts"][1]["start_s"]
    assert said.count("starting the server") == 2
    assert "started again in" in said
    assert point.session.startswith("tiny-opt-mock-restart-")


def test_the_servers_log_and_requests_of_each_window_are_kept(measured: tuple[Study, Path, str]) -> None:
    study, results, _ = measured
    files = {path.name for path in (results / "points" / next(iter(study.points))).iterdir()}
    assert {f"{window}.requests.csv.gz" for window in WINDOWS} <= files


def test_tables_and_figure_tell_the_windows_and_the_phases(measured: tuple[Study, Path, str]) -> None:
    study, results, _ = measured
    tables = make(Inputs(plan=plan_of(study, "group", "again"), points=results / "points"))
    windows, phases = tables["restart"], tables["startup"]
    assert windows["window"].tolist() == list(WINDOWS)
    assert (windows["first_ttft_ms"] > 0).all()
    assert phases[phases["start"] == "again"]["phase"].tolist() == ["process", "ready", "first_token"]
    believed = windows.assign(verdict="valid")  # a busy machine may make this one doubtful
    figure, numbers = draw(Inputs({"restarts.restart": believed, "restarts.startup": phases}))
    assert set(numbers["panel"]) == {"starts", "ttft"}
    assert "SIMULATED" in figure.get_supxlabel()


def test_a_point_that_was_not_measured_is_a_row_and_said_in_the_figure(tmp_path: Path) -> None:
    tables = make(Inputs(plan=plan_of(restarts(), "group", "again"), points=tmp_path / "points"))
    assert tables["restart"]["status"].tolist() == ["missing"]
    assert tables["startup"].empty
    figure, _ = draw(Inputs({"restarts.restart": tables["restart"], "restarts.startup": tables["startup"]}))
    assert "not whole: tiny-opt cap 2 (missing)" in figure.get_supxlabel()


def test_another_load_or_server_is_another_point_and_another_kind_another_key() -> None:
    one, other = restarts(), restarts(load={"requests": 7, "warmup_requests": 1})
    assert set(one.points) != set(other.points)
    swept = {key for key, point in expand_study(check_config(small_config())).points.items() if point}
    assert not swept & set(one.points)


def test_phases_end_with_their_lines_and_what_is_not_told_is_part_of_the_next(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    phases = StartupPhases(log, {"process": "hello", "weights": "loaded", "compile": "compiled"})
    phases.look(1.0)  # there is no log yet
    log.write_text("hel", encoding="utf-8")
    phases.look(2.0)
    log.write_text("hello\nsomething else\n", encoding="utf-8")
    phases.look(3.0)
    log.write_text("hello\nsomething else\ncompiled in 3 s\nloaded late\n", encoding="utf-8")
    phases.look(7.0)
    phases.ready(8.0)
    assert phases.durations_s == {"process": 3.0, "weights": 4.0, "compile": 0.0, "ready": 1.0}
    skipped = StartupPhases(log, {"process": "never", "weights": "loaded late"})
    skipped.ready(5.0)
    assert skipped.durations_s == {"weights": 5.0, "ready": 0.0}


def test_a_load_in_seconds_has_not_the_same_prompts_each_time() -> None:
    with pytest.raises(UserError, match=r"give load\.requests, not seconds"):
        restarts(load={"seconds": 5})
