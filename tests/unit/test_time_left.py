"""What a session says of the time that is left, from a probe and from what was measured."""

import json
import re
from pathlib import Path

import pytest

from memgap.kinds.online.kind import ONLINE
from memgap.kinds.registry import kind_of
from memgap.kinds.restart import RESTART
from memgap.session.time_left import TimeLeft, Work
from memgap.study.estimate import guessed_s
from tests.support.records import small_study
from tests.support.sessions import run_all


def test_without_a_probe_the_time_left_follows_the_slowest_point() -> None:
    left = TimeLeft([Work(1.0), Work(2.0), Work(3.0)])
    assert left.to_probe == ()
    assert left.remaining_s() is None
    left.finished(10.0)
    assert left.remaining_s() == pytest.approx(50.0)
    left.finished(None)
    assert left.remaining_s() == pytest.approx(30.0), "one that was measured elsewhere tells nothing"


def test_work_of_no_steps_tells_nothing_of_the_others() -> None:
    left = TimeLeft([Work(0.0), Work(2.0)])
    left.finished(5.0)
    assert left.remaining_s() is None


def test_a_load_in_seconds_lasts_so_long_on_a_fast_server_and_as_long_as_its_requests_on_a_slow_one() -> None:
    work = Work(steps=300, at_once=8, seconds=10.0, beside_steps=100)
    assert work.lasts_s(0.001) == pytest.approx(10.1)
    assert work.lasts_s(0.1) == pytest.approx(30.0 + 10.0)


def test_a_probe_of_the_ends_tells_what_is_between_them() -> None:
    left = TimeLeft([Work(0, cap, seconds=10.0, beside_steps=100) for cap in (1, 16, 31)])
    assert left.to_probe == (1, 31)
    left.probed(1, 0.01)
    left.probed(31, 0.07)
    assert left.remaining_s() == pytest.approx(3 * 10.0 + 100 * (0.01 + 0.04 + 0.07))


def test_what_a_point_took_beyond_its_steps_the_next_ones_take_too() -> None:
    left = TimeLeft([Work(0, cap, seconds=10.0, beside_steps=100) for cap in (1, 2)])
    left.probed(1, 0.01)
    left.probed(2, 0.01)
    left.finished(14.0, step_s=0.02)
    assert left.remaining_s() == pytest.approx(10.0 + 1.0 + 2.0)


def test_a_point_that_failed_leaves_the_estimate_as_it_was() -> None:
    left = TimeLeft([Work(0, 1, seconds=10.0), Work(0, 1, seconds=10.0)])
    left.probed(1, 0.01)
    left.finished(1.0)
    assert left.remaining_s() == pytest.approx(10.0)


def test_the_work_of_a_load_in_seconds_has_its_warm_up_and_what_is_waited_for() -> None:
    study = small_study(batch_cap=4, load={"seconds": 3, "warmup_requests": 4})
    (point,) = study.points.values()
    work = kind_of(point.record).work(point.record)
    output = ONLINE.output_tokens(point.record)
    assert (work.at_once, work.seconds) == (4, 3.0)
    assert work.steps == pytest.approx(4 * output), "four requests a seat"
    assert work.beside_steps > 2 * output
    assert guessed_s(point.record, {"tiny-opt": 0.001}) == pytest.approx(3.0, rel=0.01)
    assert guessed_s(point.record, {"tiny-opt": 10_000.0}) == pytest.approx(10 * (work.steps + work.beside_steps))
    thrice = RESTART.work(point.record)
    assert (thrice.seconds, thrice.steps) == (9.0, 3 * work.steps)


def test_several_replicas_hold_as_many_requests_each() -> None:
    study = small_study(batch_cap=4, replicas=[1, 2])
    assert [ONLINE.work(point.record).at_once for point in study.points.values()] == [4, 8]


def seconds(said: str) -> int:
    """Return the seconds of a duration that was said."""
    minutes, rest = said.split(":")
    return 60 * int(minutes) + int(rest)


def test_a_session_says_what_its_loads_in_seconds_take_before_the_first_one(tmp_path: Path) -> None:
    study = small_study(load={"seconds": 2, "warmup_requests": 1, "requests": 30})
    lines = run_all(study, tmp_path).splitlines()
    (place,) = [number for number, line in enumerate(lines) if "3 points ahead" in line]
    assert "ready after" in lines[place - 1]
    found = re.search(r"about (\d+:\d\d)$", lines[place])
    assert found
    assert 6 <= seconds(found[1]) <= 8
    assert not any("of 30 requests" in line for line in lines), "a bound that no load in seconds need reach"


def test_a_load_in_requests_is_not_probed(tmp_path: Path) -> None:
    assert "ahead" not in run_all(small_study(batch_cap=1), tmp_path)


def test_a_server_that_dies_of_the_probe_costs_no_point_its_result(tmp_path: Path) -> None:
    study = small_study(
        batch_cap=[1, 4], server={"step-base-ms": 1.0, "fault": "oom-at-running:3"}, load={"seconds": 1, "requests": 30}
    )
    run_all(study, tmp_path)
    found = [json.loads(path.read_text()) for path in tmp_path.glob("points/[!.]*/point.json")]
    assert {one["record"]["batch_cap"]: one["status"] for one in found} == {1: "ok", 4: "oom"}
