"""Which points a session measures, and what a measured point holds."""

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memgap.errors import UserError
from memgap.host import server
from memgap.session import command, run
from memgap.session.progress import Progress
from memgap.session.run import Session, check_plan
from memgap.session.watch import StopWatch
from memgap.study.study import Study
from tests.support.records import small_study, store_point
from tests.support.sessions import runner


def todo(results: Path, study: Study, **options: Any) -> list[int]:
    """Return the caps that the study's one session would measure."""
    (name,) = study.sessions
    plan = study.session_plan(name)
    plan["options"].update(options)
    session = Session(plan, results, Progress(name, io.StringIO()), StopWatch())
    return [point["record"]["batch_cap"] for point in session.todo()]


def stored(results: Path, study: Study) -> dict[int, str]:
    """Store cap 1 as measured, 2 as failed and 4 as garbled; returns the keys by cap."""
    records = {point.record["batch_cap"]: point.record for point in study.points.values()}
    keys = {
        1: store_point(results / "points", records[1], {}),
        2: store_point(results / "points", records[2], None, status="oom"),
        4: store_point(results / "points", records[4], {}),
    }
    (results / "points" / keys[4] / "point.json").write_text("{")
    return keys


def test_what_is_missing_or_garbled_is_measured_and_a_failure_stays(tmp_path: Path) -> None:
    study = small_study()
    assert todo(tmp_path, study) == [1, 2, 4]
    stored(tmp_path, study)
    assert todo(tmp_path, study) == [4]
    assert todo(tmp_path, study, remeasure_failed=True) == [2, 4]


def test_a_point_that_is_asked_for_again_is_measured_once_for_that_list(tmp_path: Path) -> None:
    study = small_study()
    keys = stored(tmp_path, study)
    asked = [keys[1]]
    assert todo(tmp_path, study, remeasure=asked) == [1, 4]
    record = study.points[keys[1]].record
    store_point(tmp_path / "points", record, {}, remeasured_for=asked)
    assert todo(tmp_path, study, remeasure=asked) == [4]
    assert todo(tmp_path, study, remeasure=[]) == [4]
    assert todo(tmp_path, study, remeasure=[keys[4]]) == [4]


def test_naming_another_point_does_not_measure_the_first_again(tmp_path: Path) -> None:
    study = small_study()
    keys = stored(tmp_path, study)
    store_point(tmp_path / "points", study.points[keys[1]].record, {}, remeasured_for=[keys[1]])
    both = sorted([keys[1], keys[2]])
    assert todo(tmp_path, study, remeasure=both) == [2, 4]


@pytest.mark.parametrize("missing", ["session", "points", "options", "model_folder"])
def test_a_plan_without_a_part_is_one_sentence(missing: str) -> None:
    study = small_study()
    plan = study.session_plan(next(iter(study.sessions)))
    del plan[missing]
    with pytest.raises(UserError, match="not a session plan"):
        check_plan(plan)


def test_a_session_by_name_takes_its_plan_from_the_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = small_study()
    config = tmp_path / "config.json"
    config.write_text(json.dumps(study.config))
    arguments = ["--config", str(config), "--results", str(tmp_path / "results")]
    assert command.main([*arguments, "--name", "nobody"]) == 2
    (name,) = study.sessions
    assert f"unknown session 'nobody'; known are {name}" in capsys.readouterr().err
    assert command.main(arguments) == 2
    assert "give either --plan FILE" in capsys.readouterr().err
    for point in study.points.values():
        store_point(tmp_path / "results/points", point.record, {})
    log = tmp_path / "logs/session.log"
    assert command.main([*arguments, "--name", name, "--log", str(log)]) == 0
    assert log.read_text() == f"[{name}] all 3 points are in the store already\n"


def table(path: Path) -> list[dict[str, str]]:
    """Return the rows of a gzipped CSV file."""
    return list(csv.DictReader(gzip.decompress(path.read_bytes()).decode().splitlines()))


def test_a_point_holds_its_requests_tokens_samples_and_provenance(tmp_path: Path) -> None:
    session = runner(tmp_path, batch_cap=2, server={"step-base-ms": 10.0})
    session.run()
    point = session.points()[2]
    folder = session.results / "points" / point["key"]
    assert {path.name for path in folder.iterdir()} == {
        "point.json",
        "requests.csv.gz",
        "tokens.npz",
        "telemetry.csv.gz",
        "server.log",
        "startup.csv.gz",
    }
    assert len(table(folder / "requests.csv.gz")) == 6
    with np.load(folder / "tokens.npz", allow_pickle=False) as tokens:
        assert tokens["tokens"].sum() == 48
        assert set(tokens["request"]) == set(range(6))
        assert (np.diff(tokens["time_s"][tokens["request"] == 0]) >= 0).all()
    samples = table(folder / "telemetry.csv.gz")
    times = [float(row["time_s"]) for row in samples]
    assert times == sorted(times)
    assert times[0] < 0
    assert times[-1] > point["window"]["duration_s"]
    inside = [float(row["num_requests_running"]) for row, time_s in zip(samples, times, strict=True) if time_s > 0]
    assert max(inside) == 2
    assert {row["gpu_power_w"] for row in samples} == {""} or point["hardware"]["gpu_count"]
    assert point["provenance"]["engine_package"] == "memgap-mock"
    assert "--step-base-ms" in point["provenance"]["commands"][0]
    assert point["hardware"]["host_memory_bytes"] > 0
    assert point["window"]["end_unix_s"] - point["window"]["start_unix_s"] == pytest.approx(
        point["window"]["duration_s"]
    )
    assert not any(path.name.startswith("memgap-") for path in folder.parent.iterdir())


def test_few_failed_requests_are_a_flag_and_not_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEALTHY_S", 0.1)
    load = {"requests": 30, "warmup_requests": 0}
    session = runner(tmp_path, batch_cap=4, server={"step-base-ms": 1.0, "fault": "http-500:30"}, load=load)
    assert command.main(session.command()[2:]) == 0
    point = session.points()[4]
    assert point["status"] == "ok"
    assert "failed_requests" in point["flags"]
    assert point["summary"]["requests_failed"] == 1
    assert point["error"] is None


def test_a_terminal_gets_passing_states_and_a_log_does_not() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal, log = Terminal(), io.StringIO()
    progress = Progress("s", run._Tee(terminal, log))  # type: ignore[arg-type]
    progress.update("1 of 2")
    progress.say("done")
    assert "[s] 1 of 2" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[K[s] done\n")
    assert log.getvalue() == "[s] done\n"
