"""Sessions of a wanted length: they fit, and a point that has a session keeps it."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memgap.errors import UserError
from memgap.study.estimate import ASSUMED_START_S
from memgap.study.sizing import FILE, Candidate, assign
from memgap.workflow import load_study

LIMIT_S = 600.0
LENGTHS = st.lists(st.integers(0, 1000).map(float), min_size=1, max_size=30)


def candidates(lengths: list[float], first: int = 0) -> list[Candidate]:
    return [Candidate(f"{first + number:016x}", "server", length) for number, length in enumerate(lengths)]


@settings(deadline=None)
@given(LENGTHS)
def test_every_session_fits_or_has_one_point(lengths: list[float]) -> None:
    points = candidates(lengths)
    places = assign(points, LIMIT_S, {})
    for session in set(places.values()):
        inside = [one.estimate_s for one in points if places[one.key] == session and one.estimate_s > 0]
        assert len(inside) <= 1 or ASSUMED_START_S + sum(inside) <= LIMIT_S


@settings(deadline=None)
@given(LENGTHS, LENGTHS)
def test_new_points_move_no_other_whatever_their_order(old: list[float], new: list[float]) -> None:
    before = assign(candidates(old), LIMIT_S, {})
    mixed = [*candidates(new, first=1000), *candidates(old)]
    after = assign(mixed, LIMIT_S, before)
    assert {key: after[key] for key in before} == before
    assert after.keys() == {one.key for one in mixed}


def test_points_in_the_store_take_no_room() -> None:
    stored = candidates([0.0] * 50)
    places = assign([*stored, *candidates([500.0], first=1000)], LIMIT_S, {})
    assert set(places.values()) == {"server"}


def config(caps: list[int], session_s: float | None = 300.0, **sweep: Any) -> dict[str, Any]:
    """Points of about 164 s each at the assumed 20 ms a token: two to a session of 300 s would not fit, so one."""
    return {
        "engines": {"mock": {"adapter": "mock"}},
        "models": {"tiny-opt": {"weights": "synthetic"}},
        "datasets": {"short": {"kind": "random", "requests": 4096, "prompt_tokens": 16, "output_tokens": 64}},
        "sweeps": {
            "many": {
                "fixed": {
                    "model": "tiny-opt",
                    "dataset": "short",
                    "batch_cap": caps,
                    "load": {"requests_per_slot": 100},
                },
                **sweep,
            }
        },
        "resources": {"session_s": session_s},
    }


def sessions_by_cap(settings: dict[str, Any]) -> dict[int, str]:
    study = load_study(settings)
    assert sorted(key for keys in study.sessions.values() for key in keys) == sorted(study.points)
    assert all(study.points[key].session == name for name, keys in study.sessions.items() for key in keys)
    return {point.record["batch_cap"]: point.session for point in study.points.values()}


def test_a_cap_in_between_leaves_the_others_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    whole = set(sessions_by_cap(config([1, 2, 8], session_s=None)).values())
    assert len(whole) == 1
    before = sessions_by_cap(config([1, 2, 8]))
    assert len(set(before.values())) == 3
    assert before[1] in whole
    after = sessions_by_cap(config([1, 2, 4, 8]))
    assert {cap: after[cap] for cap in before} == before
    assert len(set(after.values())) == 4
    assert sessions_by_cap(config([8, 2])) == {8: before[8], 2: before[2]}


def test_without_a_length_nothing_is_written_and_names_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sessions_by_cap(config([1, 2], session_s=None))
    assert not (tmp_path / "results").exists()


def test_points_of_stop_rules_stay_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(set(sessions_by_cap(config([1, 2, 8], stop={"after_preemption": True})).values())) == 1


def test_a_foreign_name_in_the_file_is_no_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = sessions_by_cap(config([1, 2]))
    path = tmp_path / "results" / FILE
    path.write_text(json.dumps(dict.fromkeys(json.loads(path.read_text()), "../../elsewhere")))
    assert sessions_by_cap(config([1, 2])) == before


def test_a_damaged_file_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "results" / FILE
    path.parent.mkdir(parents=True)
    path.write_text('{"a": ')
    with pytest.raises(UserError, match=r"sessions\.json.*remove it"):
        load_study(config([1]))
