"""A lab expands to points of other kinds, and what cannot be is refused at once."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from memgap.canonical import canonical_json
from memgap.errors import UserError
from memgap.kinds.registry import kind_of
from memgap.labs.plan import run_plan
from memgap.labs.points import AA_REPEATS, all_cells, capacities, known_points
from memgap.labs.reference import with_names
from memgap.store.points import PointStore
from memgap.workflow import load_study
from tests.support.labs import lab_config, lab_plan, store_cells

NOTHING = Path("no-results-yet")
RATES = {"load.rate_of_capacity": [0.25, float("inf")]}
SWEEP = {
    "fixed": {
        "model": "tiny-opt",
        "dataset": "short",
        "batch_cap": 4,
        "cap_side": "server",
        "server": {"step-base-ms": 4.0},
        "load": {"requests": 8, "warmup_requests": 1},
        "repeats": 3,
    }
}


def cells(plan: Mapping[str, Any]) -> list[tuple[str, int, dict[str, Any]]]:
    return [(one.arm, one.block, dict(one.at)) for one in all_cells(plan, PointStore(NOTHING))]


def test_every_arm_is_measured_once_a_block_at_every_axis_value() -> None:
    plan = lab_plan(axis={"batch_cap": [2, 4], "dataset": ["short", "long"]}, blocks=2)
    places = [{"batch_cap": cap, "dataset": name} for cap in (2, 4) for name in ("short", "long")]
    wanted = [(arm, block, at) for block in (0, 1) for arm in ("slow", "fast") for at in places]
    assert cells(plan) == wanted
    zipped = lab_plan(
        axis={"batch_cap": [2, 4], "dataset": ["short", "long"]}, zip=[["batch_cap", "dataset"]], blocks=1
    )
    assert [at for _, _, at in cells(zipped)][:2] == [places[0], places[3]]
    fewer = lab_plan(
        axis={"batch_cap": [2, 4]}, blocks=1, arms={"slow": {}, "fast": {**FAST, "only": {"batch_cap": [4]}}}
    )
    assert [(arm, at["batch_cap"]) for arm, _, at in cells(fewer)] == [("slow", 2), ("slow", 4), ("fast", 4)]


CLAIM = {"say": "it is", "ratio": ["itl_mean_ms", "slow", "fast"], "above": 1}
FAST: dict[str, Any] = {"server": {"step-base-ms": 2.0}}


def test_points_are_those_of_a_sweep_with_the_block_as_repeat() -> None:
    config = lab_config()
    config["sweeps"] = {"same": SWEEP}
    study = load_study(config)
    mine = [point.key for arm, point in known_points(study.labs["01"], NOTHING) if arm == "slow"]
    assert mine == [key for _, key in study.sweeps["same"]]


def test_a_dataset_changed_to_what_it_was_is_the_same_point() -> None:
    plan = lab_plan(axis={"dataset.prompt_tokens": [12, 20]}, blocks=1)
    plain = lab_plan(blocks=1)
    keys = [one.point.key for one in all_cells(plan, PointStore(NOTHING))]
    assert keys[0] == next(all_cells(plain, PointStore(NOTHING))).point.key
    assert len(set(keys)) == 4
    lengths = [one["record"]["dataset"]["prompt_tokens"]["min"] for one in plan["cells"]]
    assert lengths == [12, 20, 12, 20]


def test_an_infinite_rate_sends_all_at_once() -> None:
    plan = lab_plan(axis={"load.rate_req_s": [4, float("inf")]}, blocks=1)
    loads = [one["record"]["load"] for one in plan["cells"][:2]]
    assert [(load["arrival"], load["rate_req_s"]) for load in loads] == [("poisson", 4.0), ("all-at-once", None)]
    assert canonical_json(plan)


def test_rates_follow_from_the_capacity_of_the_reference(tmp_path: Path) -> None:
    plan = lab_plan(axis=RATES, blocks=2)
    store = PointStore(tmp_path)
    assert [one.at["load.rate_of_capacity"] for one in all_cells(plan, store)] == ["inf"] * 4
    (capacity, *_) = known_points(plan, tmp_path)
    assert capacity[1].record["load"]["arrival"] == "all-at-once"
    store_cells(plan, tmp_path, lambda cell: {"request_throughput_req_s": 33.333, "output_tokens": 1.0})
    rated = [one for one in all_cells(plan, store) if one.at["load.rate_of_capacity"] == 0.25]
    assert {one.point.record["load"]["rate_req_s"] for one in rated} == {8.33}
    assert len(rated) == 4
    assert capacities(plan, store)[0] == {"{}": 33.333}


def test_a_capacity_that_failed_gives_no_rate_and_says_why(tmp_path: Path) -> None:
    plan = lab_plan(axis=RATES, blocks=1)
    store_cells(plan, tmp_path, lambda cell: {}, status="oom")
    rates, reasons = capacities(plan, PointStore(tmp_path))
    assert (rates, list(reasons)) == ({}, ["{}"])
    assert "oom" in reasons["{}"]


def test_the_reference_is_measured_twice_as_other_points() -> None:
    plan = lab_plan(aa=True, axis={"batch_cap": [1, 2, 4]}, blocks=2)
    same = [one for one in all_cells(plan, PointStore(NOTHING)) if one.arm == "same"]
    assert [(one.at["batch_cap"], one.point.record["repeat"]) for one in same] == [(2, AA_REPEATS), (2, AA_REPEATS + 1)]
    assert next(iter(plan["claims"])) == "aa"


def test_what_is_claimed_and_drawn_makes_no_run_stale() -> None:
    before, claimed = lab_plan(), lab_plan(claims={"1": CLAIM}, question="Is it?")
    assert run_plan(before) != run_plan(claimed), "a claim may need something"
    other = lab_plan(claims={"1": {**CLAIM, "above": 2}}, figure={"panels": [{"kind": "bars", "y": "itl_mean_ms"}]})
    assert run_plan(claimed) == run_plan(other)
    assert run_plan(before) != run_plan(lab_plan(blocks=4))


def test_what_came_before_a_phase_is_part_of_its_key() -> None:
    steps: list[dict[str, Any]] = [{"measure": "cold"}, {"measure": "warm"}]
    plans = [
        lab_plan(phases=steps),
        lab_plan(phases=[steps[0], {"reset": ["gpu"]}, steps[1]]),
        lab_plan(phases=[steps[0], {"restart": "engine"}, steps[1]]),
        lab_plan(phases=[steps[0], {"evict": "page-cache"}, steps[1]]),
    ]
    first = [next(all_cells(plan, PointStore(NOTHING))).point for plan in plans]
    assert len({point.key for point in first}) == 4
    assert [one["warm_up"] for one in first[2].record["phases"] if "measure" in one] == [True, True]
    assert [one["warm_up"] for one in first[0].record["phases"]] == [True, False]
    assert {kind_of(point.record).name for point in first} == {"phases"}
    assert plans[0]["phases"] == ["cold", "warm"]


def test_an_offline_lab_is_made_of_offline_points() -> None:
    config = lab_config(
        kind="offline",
        fixed={"model": "tiny-opt", "prompt_tokens": 16, "output_tokens": 8},
        arms={"graphs": {}, "eager": {"server": {"enforce-eager": True}}},
        axis={"batch": [1, 4]},
        claims={
            "1.1": {"say": "x", "ratio": ["decode_step_mean_ms", "eager", "graphs"], "at": {"batch": 1}, "above": 1}
        },
        aa=True,
    )
    config["engines"] = {"vllm": {"adapter": "vllm", "version": "0.26.0"}}
    plan = load_study(config).labs["01"]
    assert {kind_of(one["record"]).name for one in plan["cells"]} == {"offline"}
    assert [one["record"]["batch"] for one in plan["cells"]] == [1, 4, 1, 4, 4]
    assert plan["claims"]["aa"]["ratio"][0] == "decode_step_mean_ms"


def test_an_arm_of_another_kind_takes_what_all_kinds_have() -> None:
    arms = {
        "server": {},
        "step": {"kind": "offline", "batch": 1, "prompt_tokens": 16, "output_tokens": 8},
    }
    claim = {"say": "x", "ratio": ["itl_mean_ms", "server", "decode_step_mean_ms", "step"], "within": 0.15}
    config = lab_config(arms=arms, claims={"2.4": claim})
    config["labs"]["01"]["fixed"]["server"] = {}
    config["engines"] = {"vllm": {"adapter": "vllm", "version": "0.26.0"}}
    plan = load_study(config).labs["01"]
    assert [kind_of(one["record"]).section or "phases" for one in plan["cells"]] == ["sweeps", "offline"]
    config["labs"]["01"]["claims"]["2.4"]["ratio"][2] = "itl_mean_ms"
    with pytest.raises(UserError, match="unknown metric 'itl_mean_ms'"):
        load_study(config)


def test_groups_of_requests_are_the_parts_of_a_mixture() -> None:
    config = lab_config(claims={"1": {**CLAIM, "ratio": ["itl_mean_ms.chat", "slow", "fast"]}})
    lengths = {"prompt_tokens": 12, "output_tokens": 8, "weight": 1}
    parts = [{"name": "chat", **lengths}, {"name": "long", **lengths, "prompt_tokens": 40}]
    config["datasets"]["short"] = {"kind": "mixed", "requests": 32, "parts": parts}
    assert load_study(config).labs["01"]["groups"] == ["chat", "long"]
    config["labs"]["01"]["claims"]["1"]["ratio"][0] = "itl_mean_ms.short"
    with pytest.raises(UserError, match="unknown group of requests 'short'; known are chat, long"):
        load_study(config)


def test_an_arm_may_be_several_servers_behind_a_router() -> None:
    two = {"members": {"a": {}, "b": {}}, "router": {"kind": "round-robin"}}
    plan = lab_plan(arms={"one": {}, "two": {"topology": two}})
    one, other = (cell["record"]["server"] for cell in plan["cells"])
    assert "topology" not in one
    assert set(other["topology"]["members"]) == {"a", "b"}


def test_engines_are_compared_as_arms_or_axis_each_in_its_environment() -> None:
    config = lab_config(arms={"old": {"engine": "old"}, "new": {"engine": "new"}}, axis={"dataset": ["short", "long"]})
    config["labs"]["01"]["fixed"]["server"] = {}
    config["engines"] = {
        name: {"adapter": "vllm", "version": version, "python": f"/opt/{name}/bin/python"}
        for name, version in (("old", "0.26.0"), ("new", "0.33.0"))
    }
    plan = load_study(config).labs["01"]
    assert {one["record"]["engine"]["version"] for one in plan["cells"]} == {"0.26.0", "0.33.0"}
    assert plan["options"]["old"]["python"] == "/opt/old/bin/python"
    assert {one["record"]["dataset"]["name"] for one in plan["cells"]} == {"short", "long"}


def test_an_engine_that_is_not_installed_leaves_its_arm_out() -> None:
    config = lab_config(
        arms={"slow": {"engine": "mock"}, "other": {"engine": "sglang", "server": {"step-base-ms": None}}}
    )
    config["engines"]["sglang"] = {"adapter": "sglang"}
    plan = load_study(config).labs["01"]
    assert plan["left_out"] == {"other": "sglang is not installed"}
    assert {arm for arm, _ in known_points(plan, NOTHING)} == {"slow"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"question": None}, "labs.01.question"),
        ({"qustion": "x"}, "unknown key 'qustion'"),
        ({"fixed": {"model": "tiny-opt", "dataset": "short"}}, "no `batch_cap` is given"),
        ({"arms": {"a": {"sever": {}}}}, "labs.01.arms.a: unknown key 'sever' (did you mean 'server'?)"),
        ({"arms": {"slow": {}, "also": {}}}, "slow and also are the same configuration"),
        ({"arms": {"slow": {"topology": {"member": {"a": {}}}}}}, "labs.01.arms.slow: topology: unknown key 'member'"),
        ({"arms": {"slow": {"only": {"batch": [1]}}}}, "unknown axis 'batch'"),
        ({"arms": {"slow": {"server": {"step-base-ms": [1, 2]}}}}, "server.step-base-ms is a list"),
        ({"axis": {"datset": ["short"]}}, "unknown key 'datset'"),
        ({"axis": {"dataset.prefix": [1]}}, "unknown key 'prefix'"),
        ({"axis": {"model.dtype": ["float16"]}}, "no axis goes into 'model'"),
        ({"axis": {"load.rate_of_capacity": ["half"]}}, "'half' is no share"),
        ({"axis": {"load.rate_of_capacity": [1], "load.rate_req_s": [1]}}, "either absolute or a share"),
        ({"phases": [{"reset": ["gpu"]}]}, "no step measures"),
        ({"phases": [{"measure": "a"}, {"measure": "a"}]}, "two phases are called 'a'"),
        ({"phases": [{"measure": "a", "restart": "engine"}]}, "give one of measure"),
        ({"phases": [{"measure": "a"}, {"reset": ["external"]}]}, "not built yet"),
        ({"kind": "static"}, "a lab of kind static"),
        ({"claims": {"1": {**CLAIM, "ratio": ["itl_men_ms", "slow", "fast"]}}}, "did you mean 'itl_mean_ms'?"),
        ({"claims": {"1": {**CLAIM, "ratio": ["itl_mean_ms", "slow", "fst"]}}}, "unknown arm 'fst'"),
        ({"claims": {"1": {**CLAIM, "ratio": ["itl_mean_ms.long", "slow", "fast"]}}}, "unknown group of requests"),
        ({"claims": {"1": {**CLAIM, "at": {"batch_cap": 2}}}}, "unknown axis 'batch_cap'"),
        (
            {"claims": {"1": {**CLAIM, "at": {"batch_cap": 8}}}, "axis": {"batch_cap": [2, 4]}},
            "has no value 8; it has 2, 4",
        ),
        ({"claims": {"1": {**CLAIM, "below": 2}}}, "one bound"),
        ({"claims": {"1": {**CLAIM, "value": ["itl_mean_ms", "slow"]}}}, "one effect"),
        ({"claims": {"1": {**CLAIM, "expected": "luck"}}}, "unknown expectation 'luck'"),
        ({"claims": {"1": {"say": "x", "value": ["itl_mean_ms", "slow"], "within": 0.1}}}, "something to compare"),
        ({"claims": {"1": {"say": "x", "trend": ["itl_mean_ms", "batch_cap"], "above": 1}}}, "unknown axis"),
        (
            {"claims": {"1": {"say": "x", "trend": ["1", "batch_cap"], "above": 1}}, "axis": {"batch_cap": [2, 4]}},
            "trend",
        ),
        ({"claims": {"1": CLAIM}, "phases": [{"measure": "cold"}]}, "say the phase"),
        ({"claims": {"1": {**CLAIM, "needs": {"gpu": 1}}}}, "unknown key 'gpu'"),
        ({"figure": {"panels": [{"kind": "line", "y": "itl_mean_ms"}]}}, "a line needs `x`"),
        ({"figure": {"panels": [{"kind": "bars", "y": "itl_men_ms"}]}}, "unknown metric"),
        ({"figure": {"panels": [{"kind": "series", "y": "itl_mean_ms"}]}}, "unknown value over time"),
        ({"figure": {"panels": [{"kind": "bars", "y": "itl_mean_ms", "over": "none"}]}}, "unknown arm"),
        (
            {"servers": "together", "fixed": {**SWEEP["fixed"], "engine": "vllm", "server": {}, "repeats": 1}},
            "together",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(changes: dict[str, Any], said: str) -> None:
    config = lab_config(**changes)
    if "engine" in config["labs"]["01"]["fixed"]:
        config["engines"] = {"vllm": {"adapter": "vllm", "version": "0.26.0"}}
        config["labs"]["01"]["arms"] = {"slow": {}}
    with pytest.raises(UserError) as refused:
        load_study(config)
    assert said in str(refused.value)
    assert str(refused.value).startswith("config: ")


def test_the_page_has_all_names() -> None:
    page = (Path(__file__).parents[2] / "docs/labs/form.md").read_text(encoding="utf-8")
    assert with_names(page) == page, "run `make docs`"


def test_an_engine_in_an_environment_of_its_own_has_the_version_of_that(tmp_path: Path) -> None:
    config = lab_config(arms={"old": {"engine": "old"}, "new": {"engine": "new"}})
    config["labs"]["01"]["fixed"]["server"] = {}
    config["engines"] = {}
    for name, version in (("old", "0.26.0"), ("new", "0.33.0")):
        (tmp_path / name / f"lib/python3.12/site-packages/vllm-{version}.dist-info").mkdir(parents=True)
        config["engines"][name] = {"adapter": "vllm", "python": str(tmp_path / name / "bin/python")}
    plan = load_study(config).labs["01"]
    assert [one["record"]["engine"]["version"] for one in plan["cells"]] == ["0.26.0", "0.33.0"]
