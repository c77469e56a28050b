"""Lists multiply, zipped axes go in step, and a key changes with what its point depends on and nothing else."""

from typing import Any

import pytest

from memgap.config.load import check_config
from memgap.errors import UserError
from memgap.points.expand import expand_sweep
from memgap.points.point import check_same_server
from memgap.study.plan import plan_of
from memgap.study.study import Study, expand_study
from tests.support.records import small_config, small_study


def combinations(sweep: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Expand a sweep with the schema's defaults."""
    return list(expand_sweep("s", {"experiments": {"default": {}}, "zip": [], **sweep}))


def caps(study: Study) -> dict[int, str]:
    """Return the points' keys by cap."""
    return {point.record["batch_cap"]: key for key, point in study.points.items()}


def test_lists_are_multiplied_in_the_order_written() -> None:
    found = combinations({"fixed": {"model": ["a", "b"], "batch_cap": [1, 2], "server": {"x": [True, False]}}})
    assert len(found) == 8
    assert [one["model"] for _, one in found] == ["a"] * 4 + ["b"] * 4
    assert found[0][1] == {"model": "a", "batch_cap": 1, "server": {"x": True}}


def test_zipped_axes_go_in_step() -> None:
    sweep = {"fixed": {"model": ["a", "b"], "server": {"x": [1, 2], "y": [7, 8]}}, "zip": [["model", "server.x"]]}
    assert [(one["model"], one["server"]["x"], one["server"]["y"]) for _, one in combinations(sweep)] == [
        ("a", 1, 7),
        ("a", 1, 8),
        ("b", 2, 7),
        ("b", 2, 8),
    ]


@pytest.mark.parametrize(
    ("groups", "sentence"),
    [
        ([["model", "batch_cap"]], "need equally many values; model has 2, batch_cap has 3"),
        ([["model", "cap"]], "unknown axis 'cap'"),
        ([["model", "server.x"], ["server.x", "batch_cap"]], "one group only|equally many"),
    ],
)
def test_wrong_zips_are_one_sentence(groups: list[list[str]], sentence: str) -> None:
    fixed = {"model": ["a", "b"], "batch_cap": [1, 2, 3], "server": {"x": [1, 2]}}
    with pytest.raises(UserError, match=sentence):
        combinations({"fixed": fixed, "zip": groups})


def test_an_experiment_overrides_and_null_removes_a_flag() -> None:
    sweep = {
        "fixed": {"model": "a", "server": {"x": 1, "y": 2}, "load": {"requests": 5}},
        "experiments": {"one": {"server": {"x": None}}, "two": {"model": "b", "load": {"requests": 6}}},
    }
    assert dict(combinations(sweep)) == {
        "one": {"model": "a", "server": {"y": 2}, "load": {"requests": 5}},
        "two": {"model": "b", "server": {"x": 1, "y": 2}, "load": {"requests": 6}},
    }


def test_keys_do_not_depend_on_the_order_of_keys() -> None:
    config = small_config()
    turned = {key: config[key] for key in reversed(config)}
    turned["sweeps"]["small"]["fixed"] = dict(reversed(config["sweeps"]["small"]["fixed"].items()))
    assert set(expand_study(check_config(turned)).points) == set(small_study().points)


def test_one_changed_cap_is_one_changed_key() -> None:
    before, after = caps(small_study()), caps(small_study(batch_cap=[1, 2, 8]))
    assert before[1] == after[1]
    assert before[2] == after[2]
    assert 8 in after


def test_a_new_cap_changes_no_session_name() -> None:
    before = small_study(cap_side="server")
    after = small_study(cap_side="server", batch_cap=[1, 2, 4, 8])
    assert set(before.sessions) < set(after.sessions)


def test_settings_that_change_no_measurement_change_no_key() -> None:
    config = small_config()
    config["collectors"] = {"interval_s": 1.0}
    config["resources"] = {"runtime_min": 5}
    config["engines"]["mock"]["startup_timeout_s"] = 99
    assert set(expand_study(check_config(config)).points) == set(small_study().points)


def test_the_client_side_shares_a_server_and_the_server_side_does_not() -> None:
    assert len(small_study().sessions) == 1
    study = small_study(cap_side="server")
    assert len(study.sessions) == 3
    arguments = [study.points[keys[0]].record["server"]["args"] for keys in study.sessions.values()]
    assert sorted(one["max-num-seqs"] for one in arguments) == [1, 2, 4]
    assert {study.points[key].record["load"]["arrival"] for key in study.points} == {"all-at-once"}


def test_repeats_are_points_of_their_own() -> None:
    study = small_study(repeats=3)
    assert len(study.points) == 9
    assert {point.record["repeat"] for point in study.points.values()} == {0, 1, 2}


def test_points_of_two_sweeps_are_measured_once() -> None:
    config = small_config()
    config["sweeps"]["again"] = config["sweeps"]["small"]
    study = expand_study(check_config(config))
    assert len(study.points) == 3
    assert len(study.sweeps["again"]) == 3


def test_requests_follow_the_cap_within_bounds() -> None:
    load = {"requests_per_slot": 5, "min_requests": 8, "max_requests": 15}
    study = small_study(load=load)
    assert {point.record["batch_cap"]: point.record["load"]["requests"] for point in study.points.values()} == {
        1: 8,
        2: 10,
        4: 15,
    }


def test_a_load_in_seconds_has_a_least_and_a_most_number_of_requests() -> None:
    study = small_study(load={"seconds": 5, "interval_percent": 2}, batch_cap=[1, 4, 16])
    loads = {point.record["batch_cap"]: point.record["load"] for point in study.points.values()}
    assert {cap: (one["min_requests"], one["requests"]) for cap, one in loads.items()} == {
        1: (8, 32),
        4: (16, 32),
        16: (32, 32),
    }
    assert {(one["seconds"], one["interval_fraction"]) for one in loads.values()} == {(5.0, 0.02)}
    assert all("least_seconds" not in one and "interval_percent" not in one for one in loads.values())
    untimed = small_study(load={"requests": 8})
    for name in ("seconds", "least_seconds", "interval_fraction", "min_requests"):
        assert all(name not in point.record["load"] for point in untimed.points.values())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model": "opt-1.3"}, "unknown model 'opt-1.3'"),
        ({"engine": "vllm"}, "unknown engine 'vllm'; known are mock"),
        ({"dataset": "long"}, "unknown dataset 'long'; known are short"),
        ({"server": {"port": 1}}, "'port' is set by memgap itself"),
        ({"server": {"max-num-seqs": 2}}, "batch_cap 4 is above the server's max-num-seqs 2"),
        ({"server": {"max-num-seqs": 8}, "cap_side": "server"}, "max-num-seqs is batch_cap"),
        ({"load": {"requests": 33}}, "datasets.short.requests is 32"),
        ({"load": {"requests": 4, "least_seconds": 1}}, "load.least_seconds needs load.seconds"),
        ({"load": {"requests": 4, "interval_percent": 1}}, "load.interval_percent needs load.seconds"),
        ({"load": {"seconds": 4, "least_seconds": 1}}, "load.least_seconds needs load.interval_percent"),
        ({"load": {"seconds": 4, "requests_per_slot": 2}}, "load.requests_per_slot has no meaning with load.seconds"),
        ({"load": {"seconds": 4, "requests": 4, "min_requests": 5}}, "load.min_requests 5 is above the 4 requests"),
        ({"load": {"seconds": 4}, "cap_side": "server"}, "load.seconds is for a closed loop"),
        ({"load": {}}, "exactly one of load.requests, load.requests_per_slot and load.seconds"),
        ({"load": {"requests": 4, "rate_req_s": 2}}, "rate_req_s has no meaning"),
        ({"load": {"requests": 4, "arrival": "poisson"}, "cap_side": "server"}, "needs load.rate_req_s"),
        ({"load": {"requests": 4, "arrival": "all-at-once"}}, "needs load.arrival closed"),
    ],
)
def test_contradictions_are_one_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        small_study(**changes)
    assert sentence in str(caught.value)


def test_a_missing_argument_is_named() -> None:
    config = small_config()
    del config["sweeps"]["small"]["fixed"]["model"]
    with pytest.raises(UserError, match="no `model` is given"):
        expand_study(check_config(config))


def test_plans_hold_what_their_jobs_need() -> None:
    study = small_study()
    (session,) = study.sessions
    plan = plan_of(study, "session", session)
    assert [point["key"] for point in plan["points"]] == study.sessions[session]
    assert check_same_server(plan)["server"]["args"] == {"step-base-ms": 1.0}
    assert plan["model_folder"] in study.model_folders
    assert [point["experiment"] for point in plan_of(study, "group", "small")["points"]] == ["default"] * 3
    with pytest.raises(UserError, match="unknown session 'x'"):
        plan_of(study, "session", "x")


def test_a_plan_of_two_servers_is_refused() -> None:
    study = small_study(cap_side="server")
    plans = [study.session_plan(name) for name in study.sessions]
    mixed = {**plans[0], "points": [*plans[0]["points"], *plans[1]["points"]]}
    with pytest.raises(UserError, match="need different servers"):
        check_same_server(mixed)


def test_a_chat_needs_a_tokenizer_that_reads_text() -> None:
    config = small_config(load={"requests": 6, "endpoint": "chat"}, model="qwen2.5-7b")
    config["models"] = {"qwen2.5-7b": {"weights": "synthetic", "dtype": "bfloat16"}}
    with pytest.raises(UserError, match=r"qwen2\.5-7b reads no text.*use completions"):
        expand_study(check_config(config))
