"""A session measures what is missing, records what fails, and stops cleanly."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from memgap.session.progress import clock
from tests.support.processes import left
from tests.support.records import small_config
from tests.support.sessions import SCRIPT, Runner, runner
from tests.support.waiting import LAST_RESORT_S, until


def test_all_points_are_measured_once(tmp_path: Path) -> None:
    session = runner(tmp_path, server={"step-base-ms": 10.0})
    printed = session.run()
    assert "3 points to measure" in printed
    assert "point 2 of 3 (tiny-opt, cap 2, 6 requests):" in printed
    assert {cap: one["status"] for cap, one in session.points().items()} == {1: "ok", 2: "ok", 4: "ok"}
    outcome = (session.results / f"sessions/{session.name}.json").read_text()
    assert [point["status"] for point in json.loads(outcome)["points"]] == ["ok"] * 3
    before = session.written()
    assert "all 3 points are in the store already" in session.run()
    assert session.written() == before
    assert (session.results / f"sessions/{session.name}.json").read_text() == outcome
    summary = session.points()[4]["summary"]
    assert summary["requests_completed"] == 6
    assert summary["output_tokens"] == 48
    assert summary["server_output_tokens"] == 48
    assert summary["max_running_reqs"] <= 4


def test_a_garbled_point_is_measured_again_and_only_that(tmp_path: Path) -> None:
    session = runner(tmp_path)
    session.run()
    before, told = session.written(), contents(session)
    key = session.points()[2]["key"]
    (session.results / "points" / key / "point.json").write_text('{"key"')
    session.run()
    after = session.written()
    assert [cap for cap in before if before[cap] != after[cap]] == [2]
    again = contents(session)
    assert [one for one in told if told[one] != again[one]] == [key], "what stands for the points says so"


def contents(session: Runner) -> dict[str, str]:
    """Return what a session's outcome says of its points' contents."""
    outcome = json.loads((session.results / f"sessions/{session.name}.json").read_text())
    return {point["key"]: point["content"] for point in outcome["points"]}


def test_a_server_that_dies_under_load_is_a_result_and_the_next_point_gets_a_new_one(tmp_path: Path) -> None:
    session = runner(tmp_path, batch_cap=[1, 4, 2], server={"step-base-ms": 1.0, "fault": "oom-at-running:3"})
    session.run()
    points = session.points()
    assert {cap: one["status"] for cap, one in points.items()} == {1: "ok", 4: "oom", 2: "ok"}
    assert "out of memory" in points[4]["error"]["log_tail"]
    before = session.written()
    session.run()
    assert session.written() == before
    session.plan["options"]["remeasure_failed"] = True
    session.run()
    assert [cap for cap in before if before[cap] != session.written()[cap]] == [4]


def test_a_server_that_never_starts_is_tried_twice(tmp_path: Path) -> None:
    session = runner(tmp_path, server={"fault": "oom-start"})
    printed = session.run()
    assert printed.count("starting the server") == 2
    points = session.points()
    assert {cap: one["status"] for cap, one in points.items()} == {1: "oom", 2: "oom", 4: "crash"}
    assert "not tried" in points[4]["error"]["message"]


@pytest.mark.parametrize(
    ("fault", "status"),
    [("http-500:2", "request_errors"), ("break-stream:2", "request_errors")],
    ids=["500s", "broken"],
)
def test_too_many_failed_requests_are_a_failed_point(tmp_path: Path, fault: str, status: str) -> None:
    session = runner(
        tmp_path, batch_cap=2, server={"step-base-ms": 1.0, "fault": fault}, load={"requests": 6, "warmup_requests": 0}
    )
    session.run()
    point = session.points()[2]
    assert point["status"] == status
    assert "of 6 requests failed" in point["error"]["message"]
    assert "failed_requests" in point["flags"]


def test_requests_that_never_answer_are_a_client_timeout(tmp_path: Path) -> None:
    load = {"requests": 4, "warmup_requests": 0, "request_timeout_s": 0.5}
    session = runner(tmp_path, batch_cap=4, server={"step-base-ms": 1.0, "fault": "stall:1:60"}, load=load)
    session.run()
    assert session.points()[4]["status"] == "client_timeout"


def test_preemptions_are_flagged(tmp_path: Path) -> None:
    session = runner(tmp_path, batch_cap=8, server={"step-base-ms": 1.0, "kv-tokens": 64}, load={"requests": 16})
    session.run()
    assert "preempted" in session.points()[8]["flags"]
    assert session.points()[8]["summary"]["preemptions"] > 0


def test_remeasure_measures_once(tmp_path: Path) -> None:
    session = runner(tmp_path)
    session.run()
    before = session.written()
    session.plan["options"]["remeasure"] = [session.points()[2]["key"]]
    session.run()
    after = session.written()
    assert [cap for cap in before if before[cap] != after[cap]] == [2]
    session.run()
    assert session.written() == after


def test_term_keeps_finished_points_and_leaves_no_server(tmp_path: Path) -> None:
    session = runner(tmp_path, batch_cap=[4, 1], server={"step-base-ms": 60.0}, load={"requests": 8})
    environment = {**os.environ, "MEMGAP_TEST_FOLDER": str(tmp_path)}
    process = subprocess.Popen(session.command(), stderr=subprocess.PIPE, text=True, env=environment)
    until(lambda: 4 in session.points())
    process.send_signal(signal.SIGTERM)
    _, printed = process.communicate(timeout=LAST_RESORT_S)
    assert process.returncode == 1
    assert "stopped (signal SIGTERM); finished points are kept" in printed
    assert set(session.points()) == {4}
    assert not (session.results / f"sessions/{session.name}.json").exists()
    assert left(tmp_path) == []


@pytest.mark.parametrize("plan", ["{", "[]", "{}", None])
def test_a_bad_plan_is_one_sentence(tmp_path: Path, plan: str | None) -> None:
    path = tmp_path / "plan.json"
    if plan is not None:
        path.write_text(plan)
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--plan", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("memgap: ")
    assert done.stderr.count("\n") == 1


def test_another_engine_version_is_refused(tmp_path: Path) -> None:
    from memgap.config.load import check_config
    from memgap.study.study import expand_study

    config = small_config()
    config["engines"]["mock"]["version"] = "9.9"
    printed = Runner(tmp_path, expand_study(check_config(config))).run(expect=2)
    assert "the points belong to memgap-mock 9.9, but the server is" in printed


def test_durations_are_told_as_minutes_and_hours() -> None:
    assert clock(59.6) == "1:00"
    assert clock(3725) == "1:02:05"
