"""Load tests as points: which there are, in which order, and what of a configuration is refused."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from memgap.commands.listing import list_points
from memgap.errors import UserError
from memgap.kinds.locust.environment import LOCUST_VERSION, locust_python
from memgap.kinds.locust.point import picks
from memgap.kinds.registry import session_of
from memgap.workflow import load_study
from tests.support.loadtests import loadtest_config

REPOSITORY = Path(__file__).resolve().parents[2]


def clients(study: Any) -> list[tuple[str, int, str]]:
    """Return scenario, repeat and client of the points in the order of measurement."""
    (session,) = study.sessions
    labels = {key: label for label, key in study.loadtests["asking"]}
    plan = study.session_plan(session)["points"]
    return [(labels[one["key"]], one["record"]["repeat"], one["record"]["loadtest"]["client"]) for one in plan]


def test_either_client_measures_every_repeat_and_they_take_turns_in_going_first() -> None:
    study = load_study(loadtest_config(users=[1, 3], repeats=2))
    one, three = "1 user, 2 prompts, 6 tokens", "3 users, 2 prompts, 6 tokens"
    assert clients(study) == [
        *((one, 0, "locust"), (one, 0, "memgap"), (three, 0, "locust"), (three, 0, "memgap")),
        *((one, 1, "memgap"), (one, 1, "locust"), (three, 1, "memgap"), (three, 1, "locust")),
    ]
    assert all(session_of(point.record) == point.session for point in study.points.values())


def test_what_is_locusts_alone_is_in_no_other_points_record() -> None:
    study = load_study(loadtest_config(stream=[True, False], spawn_rate_users_s=2))
    tests = [point.record["loadtest"] for point in study.points.values()]
    own = [one for one in tests if one["client"] == "memgap"]
    theirs = [one for one in tests if one["client"] == "locust"]
    assert own == [{"client": "memgap", "users": 2, "prompts": 2, "output_tokens": 6}]
    assert [one["stream"] for one in theirs] == [True, False]
    assert all(one["locust"] == LOCUST_VERSION and one["spawn_rate_users_s"] == 2.0 for one in theirs)
    assert len(study.loadtests["asking"]) == 4


def test_locust_alone_where_nothing_is_compared() -> None:
    study = load_study(loadtest_config(compare=False, repeats=2))
    assert [client for _, _, client in clients(study)] == ["locust", "locust"]


def test_one_prompt_is_repeated_and_of_several_a_random_one_is_taken_the_same_for_either_client() -> None:
    study = load_study(loadtest_config(prompts=[1, 3], requests_per_user=30))
    drawn: dict[int, list[list[int]]] = {}
    for point in study.points.values():
        drawn.setdefault(point.record["loadtest"]["prompts"], []).append(picks(point.record))
    assert drawn[1] == [[0] * 60] * 2
    assert drawn[3][0] == drawn[3][1] and set(drawn[3][0]) == {0, 1, 2}


def test_the_listing_has_the_client_where_a_sweep_has_the_side_of_its_cap(tmp_path: Path) -> None:
    rows = list_points(load_study(loadtest_config()), tmp_path)
    assert [(row.sweep, row.cap_side, row.batch_cap, row.requests) for row in rows] == [
        ("asking", "locust", 2, 8),
        ("asking", "memgap", 2, 8),
    ]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"prompts": 99}, "prompts is 99, but datasets.short.requests is 4; raise it."),
        ({"output_tokens": 9999}, "output_tokens is 9999, which leaves no room in max-model-len"),
        ({"requests": 5, "requests_per_user": 2}, "give at most one of requests and requests_per_user."),
        ({"dataset": "shrot"}, "unknown dataset 'shrot' (did you mean 'short'?)"),
        ({"engine": "moc"}, "unknown engine 'moc'"),
        ({"user": 3}, "unknown key 'user' (did you mean 'users'?)"),
    ],
)
def test_mistakes_are_told_in_a_sentence_that_says_where(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)) as told:
        load_study(loadtest_config(**changes))
    assert str(told.value).startswith("config: loadtests.asking")


def test_a_missing_argument_and_a_name_that_a_sweep_has_are_told() -> None:
    config = loadtest_config()
    del config["loadtests"]["asking"]["fixed"]["users"]
    with pytest.raises(UserError, match="no `users` is given"):
        load_study(config)
    config = loadtest_config()
    load = {"model": "tiny-opt", "dataset": "short", "batch_cap": 1, "load": {"requests": 2}}
    config["sweeps"] = {"asking": {"fixed": load}}
    with pytest.raises(UserError, match=r"loadtests.asking and sweeps.asking have the same name"):
        load_study(config)


def test_prompts_that_hang_together_cannot_be_repeated() -> None:
    config = loadtest_config()
    config["datasets"]["short"] = {
        "kind": "multi-turn",
        "requests": 4,
        "turns": 2,
        "prompt_tokens": 8,
        "output_tokens": 8,
    }
    with pytest.raises(UserError, match="which a dataset of kind multi-turn has not"):
        load_study(config)


def test_locust_is_locked_in_the_version_that_the_records_name_and_nowhere_else() -> None:
    assert f"\nlocust=={LOCUST_VERSION} " in (REPOSITORY / "envs/locust.txt").read_text()
    for lock in ("workflow", "dev", "engine-cpu", "engine-cuda"):
        assert not re.search(r"^(locust|gevent)==", (REPOSITORY / f"envs/{lock}.txt").read_text(), re.MULTILINE), lock


def test_gevent_stays_out_of_the_process_of_a_session() -> None:
    code = "import sys, memgap.kinds.locust.measure, memgap.kinds.locust.comparison; print('gevent' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_locusts_environment_is_looked_for_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEMGAP_LOCUST_PYTHON", raising=False)
    monkeypatch.chdir(tmp_path)
    note = tmp_path / ".venv-locust/memgap-locust.json"
    note.parent.mkdir()
    note.write_text('{"package": "locust", "version": "1.0.0"}')
    with pytest.raises(UserError, match=r"has Locust 1\.0\.0, but the points are of") as told:
        locust_python()
    assert "make install-locust" in str(told.value)
    note.write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        locust_python()
    note.write_text(f'{{"package": "locust", "version": "{LOCUST_VERSION}"}}')
    assert locust_python() == str(tmp_path / ".venv-locust/bin/python")
    monkeypatch.setenv("LOCUST_RUN_TIME", "3s")
    with pytest.raises(UserError, match="LOCUST_RUN_TIME would change what Locust does"):
        locust_python()
