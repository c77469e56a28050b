"""A point's key and its session follow from what is written, not from how it is written."""

import json
from typing import Any

import pytest

from memgap.canonical import canonical_json, content_key
from memgap.config.load import check_config
from memgap.errors import UserError
from memgap.study.plan import plan_of
from memgap.study.study import Study, expand_study
from memgap.workflow import load_study, snapshot
from tests.support.records import small_config, small_study


def keys(**changes: Any) -> dict[tuple[int, int], str]:
    """Return the keys of the small study by (cap, repeat)."""
    points = small_study(**changes).points
    return {(point.record["batch_cap"], point.record["repeat"]): key for key, point in points.items()}


def test_a_key_is_the_hash_of_the_record() -> None:
    assert all(key == content_key(point.record) for key, point in small_study().points.items())


@pytest.mark.parametrize(
    "changes",
    [
        {"server": {"step-base-ms": 2.0}},
        {"env": {"A": "1"}},
        {"load": {"requests": 7, "warmup_requests": 1}},
        {"load": {"requests": 6, "warmup_requests": 1, "seed": 1}},
        {"cap_side": "server"},
    ],
    ids=["flag", "variable", "requests", "seed", "cap side"],
)
def test_a_setting_that_the_measurement_depends_on_changes_every_key(changes: dict[str, Any]) -> None:
    assert not set(keys().values()) & set(keys(**changes).values())


def test_the_dataset_the_model_and_the_engine_are_part_of_the_key() -> None:
    before = set(keys().values())
    for section, name, change in (
        ("datasets", "short", {"seed": 1}),
        ("models", "tiny-opt", {"dtype": "float32"}),
        ("engines", "mock", {"version": "9"}),
    ):
        config = small_config()
        config[section][name].update(change)
        assert not before & set(load_study(config).points), section


def test_more_repeats_leave_the_first_ones_alone() -> None:
    once, thrice = keys(), keys(repeats=3)
    assert {place: thrice[place] for place in once} == once


def test_numbers_written_as_integers_or_decimals_are_the_same_load() -> None:
    load = {"requests": 6, "temperature": 0, "request_timeout_s": 600, "burstiness": 1, "warmup_requests": 4}
    assert keys(load=load) == keys(load={"requests": 6, "temperature": 0.0})


def test_a_null_among_the_values_of_a_flag_leaves_the_flag_out() -> None:
    study = small_study(batch_cap=1, server={"some-flag": [None, 3]})
    given = [point.record["server"]["args"] for point in study.points.values()]
    assert given == [{}, {"some-flag": 3}]


def engines_by_order(*names: str) -> Study:
    """Return the study without an engine in its sweep, the engines written in this order."""
    config = small_config()
    config["engines"] = {name: {"adapter": name} for name in names}
    del config["sweeps"]["small"]["fixed"]["engine"]
    return load_study(config)


def test_the_order_of_the_engines_decides_nothing() -> None:
    try:
        first = engines_by_order("vllm", "mock")
    except UserError as error:
        assert "mock" in str(error)
        return
    assert set(first.points) == set(engines_by_order("mock", "vllm").points)


def test_the_only_engine_need_not_be_named() -> None:
    study = engines_by_order("mock")
    assert {point.record["engine"]["name"] for point in study.points.values()} == {"mock"}


def test_a_job_that_reads_the_kept_configuration_has_the_same_points_in_the_same_order(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = small_config(server={"step-base-ms": 1.0, "a-flag": [1, 2]})
    config["sweeps"]["small"]["experiments"] = {"z": {"batch_cap": [4, 1]}, "a": {"batch_cap": 2}}
    study = load_study(config)
    again = expand_study(check_config(json.loads(snapshot(study).read_text())))
    assert set(again.points) == set(study.points)
    assert again.sessions == study.sessions
    for name in study.sessions:
        assert plan_of(again, "session", name) == plan_of(study, "session", name)


def test_a_plan_survives_its_file() -> None:
    study = small_study()
    plan = study.session_plan(next(iter(study.sessions)))
    read = json.loads(canonical_json(plan))
    assert [content_key(point["record"]) for point in read["points"]] == [point["key"] for point in plan["points"]]


def test_remeasure_reaches_only_the_session_that_has_the_point() -> None:
    config = small_config(cap_side="server")
    chosen = next(iter(load_study(config).points))
    config["remeasure"] = [chosen, "0" * 16]
    study = load_study(config)
    asked = {name: study.session_plan(name)["options"]["remeasure"] for name in study.sessions}
    assert asked.pop(study.points[chosen].session) == [chosen]
    assert list(asked.values()) == [[], []]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model": "opt-1.3"}, "opt-1.3b"),
        ({"server": {"max-model-len": "8k"}}, "max-model-len"),
        ({"server": {"max-num-seqs": "auto"}}, "max-num-seqs"),
        ({"load": {"requests_per_slot": 2, "min_requests": 9, "max_requests": 3}}, "min_requests"),
        ({"env": {"VLLM_API_KEY": "secret"}}, "VLLM_API_KEY"),
        ({"server": {"host": "0.0.0.0"}}, "'host' is set by memgap itself"),
    ],
    ids=["near name", "length in words", "cap in words", "crossed bounds", "a secret", "another address"],
)
def test_contradictions_name_the_argument(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        small_study(**changes)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_axis_is_in_one_group_once() -> None:
    config = small_config()
    config["sweeps"]["small"]["zip"] = [["batch_cap", "batch_cap"]]
    with pytest.raises(UserError, match="batch_cap"):
        load_study(config)
