"""Blocks in random order, failures that are results, and a lab from its plan to its claims on the simulated engine."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from memgap.canonical import canonical_json
from memgap.errors import UserError
from memgap.figures import lab as lab_figure
from memgap.labs import command, tables, verdicts
from memgap.labs.command import part_of
from memgap.labs.points import all_cells, known_points
from memgap.labs.run import read_outcome, run_lab
from memgap.points.point import Record
from memgap.recorded.export import export
from memgap.session.watch import StopWatch
from memgap.store.points import PointStore
from memgap.tables.inputs import Inputs
from memgap.workflow import load_study
from tests.support.figures import texts
from tests.support.labs import lab_config, lab_plan, store_cells
from tests.support.races import MadeServers
from tests.support.records import store_point
from tests.support.waiting import until

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _made_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memgap.labs.run.Servers", MadeServers)


def measured(plan: Mapping[str, Any], results: Path) -> list[tuple[str, int]]:
    """Run a lab on made servers; returns (arm, block) of each measurement in order."""
    MadeServers(None, None, results)  # a lab that measures nothing opens none
    run_lab(plan, results, StopWatch(), sys.stderr)
    named = {one.point.key: (one.arm, one.block) for one in all_cells(plan, PointStore(results / "points"))}
    return [named[key] for key in MadeServers.last.measured]


def made_plan(**changes: Any) -> Record:
    """Return the plan of a lab of three arms on made servers."""
    arms = {"one": {}, "two": {"server": {"speed": 1100.0}}, "three": {"server": {"speed": 1200.0}}}
    plan = lab_plan(**{"arms": arms, "blocks": 6, **changes})
    for cell in plan["cells"]:
        cell["record"]["server"]["args"].pop("step-base-ms", None)
    return plan


def test_each_block_measures_every_arm_once_in_an_order_of_its_own(tmp_path: Path) -> None:
    order = measured(made_plan(), tmp_path / "a")
    blocks = [[arm for arm, block in order if block == number] for number in range(6)]
    assert [block for _, block in order] == sorted(block for _, block in order)
    assert all(sorted(block) == ["one", "three", "two"] for block in blocks)
    assert len(set(map(tuple, blocks))) > 1
    assert measured(made_plan(), tmp_path / "b") == order, "the same seed gives the same order"
    assert measured(made_plan(seed=1), tmp_path / "c") != order


def test_what_is_stored_is_not_measured_again(tmp_path: Path) -> None:
    plan = made_plan(blocks=2)
    assert len(measured(plan, tmp_path)) == 6
    assert measured(plan, tmp_path) == []
    assert len(measured(made_plan(blocks=3), tmp_path)) == 3


def test_points_that_are_asked_for_are_measured_again(tmp_path: Path) -> None:
    plan = made_plan(blocks=1)
    measured(plan, tmp_path)
    (_, point), *_ = known_points(plan, tmp_path)
    config = {**plan["options"], "mock": {**plan["options"]["mock"], "remeasure": [point.key]}}
    assert len(measured({**plan, "options": config}, tmp_path)) == 1


def test_an_arm_that_fails_is_a_result_and_the_others_go_on(tmp_path: Path) -> None:
    arms = {"good": {}, "bad": {"server": {"fails": "crash"}}}
    claims = {"1": {"say": "x", "ratio": ["tpot_mean_ms", "bad", "good"], "above": 1}}
    plan = made_plan(arms=arms, blocks=3, claims=claims)
    order = measured(plan, tmp_path)
    assert sorted(order) == [("bad", 0), ("bad", 1), ("good", 0), ("good", 1), ("good", 2)], "it is tried twice"
    found = tables.make(Inputs({}, plan=plan, points=tmp_path / "points"))
    points, judged = found["points"], found["claims"]
    assert isinstance(points, pd.DataFrame) and isinstance(judged, pd.DataFrame)
    told = zip(points["arm"], points["block"], points["status"], strict=True)
    bad = [("bad", 1, "crash"), ("bad", 2, "crash"), ("bad", 3, "missing")]
    assert sorted(told) == [*bad, *(("good", block, "ok") for block in (1, 2, 3))]
    assert judged.loc[0, "verdict"] == "not tested"
    assert judged.loc[0, "reason"] == "bad: crash: it was crash"
    assert measured(plan, tmp_path) == [], "a failure is not tried again"


def test_groups_and_gaps_of_a_point_are_metrics_and_series(tmp_path: Path) -> None:
    config = lab_config(blocks=2, figure={"panels": [{"kind": "series", "y": ["itl_ms.long", "running_reqs"]}]})
    lengths = {"prompt_tokens": 12, "output_tokens": 8, "weight": 1}
    parts = [{"name": "chat", **lengths}, {"name": "long", **lengths}]
    config["datasets"]["short"] = {"kind": "mixed", "requests": 32, "parts": parts}
    ratio = {"say": "x", "ratio": ["itl_p99_ms.long", "slow", "fast"], "above": 1.5}
    config["labs"]["01"]["claims"] = {"1": ratio, "2": {**ratio, "ratio": ["ttft_p99_ms.long", "slow", "fast"]}}
    plan = load_study(config).labs["01"]
    for cell in all_cells(plan, PointStore(tmp_path / "points")):
        gap_ms = 20.0 if cell.arm == "slow" else 10.0
        key = store_point(tmp_path / "points", cell.point.record, {"requests_completed": 8.0})
        groups = pd.DataFrame(
            {"group": ["chat", "long"], "itl_values": 5000.0, "ttft_values": 8.0, "itl_p99_ms": gap_ms}
        )
        gaps = pd.DataFrame({"event": "token", "group": [0, 1], "time_s": 1.0, "gap_ms": [1.0, gap_ms]})
        groups.to_csv(tmp_path / "points" / key / "groups.csv.gz", index=False)
        gaps.to_csv(tmp_path / "points" / key / "gaps.csv.gz", index=False)
    found = made(plan, tmp_path)
    assert list(found["claims"]["verdict"]) == ["holds", "not tested"]
    assert found["claims"].loc[0, "effect"] == pytest.approx(2.0)
    assert found["claims"].loc[1, "reason"] == "ttft_p99_ms.long needs 1000 requests, there are 8"
    assert sorted(found["series"]["value"]) == [10.0, 20.0]


def test_rates_wait_for_the_capacity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.races.summary", lambda record: {"request_throughput_req_s": 20.0})
    plan = made_plan(axis={"load.rate_of_capacity": [0.5]}, blocks=1)
    run_lab(plan, tmp_path, StopWatch(), sys.stderr)
    assert MadeServers.last.labels[0].startswith("capacity")
    assert len(MadeServers.last.labels) == 4
    assert read_outcome(tmp_path, "01")["capacities_req_s"] == {"{}": 20.0}
    rates = {point.record["load"]["rate_req_s"] for _, point in known_points(plan, tmp_path)}
    assert rates == {None, 10.0}


def test_needs_that_are_not_met_leave_the_lab_or_a_claim_untested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = {"say": "x", "ratio": ["tpot_mean_ms", "two", "one"], "below": 1}
    claims = {"1": claim, "2": {**claim, "needs": {"weights": "real"}}}
    plan = made_plan(blocks=2, claims=claims)
    measured(plan, tmp_path / "a")
    judged = tables.make(Inputs({}, plan=plan, points=tmp_path / "a/points"))["claims"]
    assert isinstance(judged, pd.DataFrame)
    assert list(judged["verdict"] == "not tested") == [False, True]
    assert "real weights" in judged.loc[1, "reason"]
    cuda = made_plan(blocks=2, claims=claims, needs={"gpus": 9})
    assert measured(cuda, tmp_path / "b") == []
    judged = tables.make(Inputs({}, plan=cuda, points=tmp_path / "b/points"))["claims"]
    assert isinstance(judged, pd.DataFrame)
    assert set(judged["verdict"]) == {"not tested"}
    assert "it needs 9 GPUs" in judged.loc[0, "reason"]


def test_what_was_measured_on_a_cpu_tests_no_claim_about_a_gpu(tmp_path: Path) -> None:
    claim = {"say": "x", "ratio": ["tpot_mean_ms", "two", "one"], "below": 1}
    claims = {"1": {**claim, "needs": {"device": "cuda"}}, "2": {**claim, "needs": {"device": "cpu"}}}
    plan = made_plan(blocks=2, claims=claims)
    hardware = {"device": "cpu", "gpu_name": None, "driver": None, "gpu_memory_bytes": None, "host_memory_bytes": 1}
    store_cells(plan, tmp_path / "points", lambda cell: {"tpot_mean_ms": 1.0}, hardware=hardware)
    judged = made(plan, tmp_path)["claims"]
    assert list(judged["verdict"] == "not tested") == [True, False]
    assert judged.loc[0, "reason"] == "it needs the device cuda, and was measured on cpu"


def small_lab() -> dict[str, Any]:
    """Return a lab that takes some seconds on the simulated engine."""
    config = lab_config(
        blocks=2,
        aa=True,
        servers="together",
        axis={"load.rate_of_capacity": [0.5, float("inf")]},
        claims={
            "1.1": {
                "say": "it is",
                "ratio": ["itl_mean_ms", "slow", "fast"],
                "above": 1.0,
                "at": {"load.rate_of_capacity": float("inf")},
            },
            "1.2": {"say": "both", "ratio": ["itl_mean_ms", "slow", "fast"], "above": 1.0},
        },
        figure={
            "panels": [
                {"kind": "line", "y": ["itl_mean_ms"], "x": "load.rate_of_capacity", "by": "arm"},
                {"kind": "bars", "y": "output_throughput_tok_s", "by": "arm", "over": "slow"},
                {"kind": "pareto", "y": "output_throughput_tok_s", "x": "itl_mean_ms"},
                {"kind": "series", "y": "in_flight_reqs"},
            ]
        },
    )
    config["labs"]["01"]["fixed"]["server"]["step-base-ms"] = 12.0
    config["labs"]["02"] = {
        **lab_config()["labs"]["01"],
        "phases": [{"measure": "cold"}, {"restart": "engine"}, {"measure": "after"}],
        "blocks": 1,
        "arms": {"slow": {}},
        "claims": {"2.1": {"say": "x", "value": ["ttft_mean_ms", "slow@after"], "above": 0}},
    }
    return config


def made(plan: Record, results: Path) -> dict[str, Any]:
    """Return a lab's tables."""
    return dict(tables.make(Inputs({}, plan=plan, points=results / "points")))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which both labs were run by the script, without Snakemake."""
    folder = tmp_path_factory.mktemp("lab")
    plans = load_study(small_lab()).labs
    paths = []
    for name, plan in plans.items():
        paths.append(str(folder / f"{name}.json"))
        Path(paths[-1]).write_text(canonical_json(plan))
    script = str(REPOSITORY / "workflow/scripts/run_lab.py")
    command = [sys.executable, script, "--plan", *paths, "--results", str(folder / "results")]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return folder


def test_a_lab_runs_without_snakemake_and_ends_in_verdicts(lab: Path, tmp_path: Path) -> None:
    plan = load_study(small_lab()).labs["01"]
    found = made(plan, lab / "results")
    claims = found["claims"].set_index("id")
    assert set(claims["source"]) == {"simulated"}
    assert claims.loc["1.1", "effect"] > 1.2
    believed = (found["points"]["verdict"] != "invalid").all()  # a machine that stands still makes a point invalid
    assert claims.loc["1.2", "blocks"] == 2 or not believed
    assert set(claims.index) == {"aa", "1.1", "1.2"}
    assert set(found["points"]["arm"]) == {"slow", "fast", "same"}
    assert "| 1.1 it is: ratio of itl_mean_ms: slow by fast" in verdicts.verdicts_page(found["claims"])
    for name, table in found.items():
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    inputs = Inputs({f"lab.{name}": [tmp_path / f"{name}.csv"] for name in found}, plan=plan)
    figure, numbers = lab_figure.draw(inputs)
    said = texts(figure)
    for text in ("SIMULATED", "slow, again", "Gap between tokens, mean (ms)", "all at once", "claims: "):
        assert text in said
    assert set(numbers["panel"]) == {"line", "bars", "pareto", "series"}
    over = numbers[(numbers["panel"] == "bars") & numbers["series"].str.startswith("slow,")]
    assert set(over.loc[~over["series"].str.contains("again"), "value"]) == {1.0}


def test_phases_are_one_point_with_a_row_each(lab: Path) -> None:
    plan = load_study(small_lab()).labs["02"]
    found = made(plan, lab / "results")
    assert list(found["points"]["phase"]) == ["cold", "after"]
    assert found["points"]["key"].nunique() == 1
    assert (found["points"]["requests_completed"] == 8).all()
    assert found["claims"].loc[0, "effect"] > 0
    (_, point), *_ = known_points(plan, lab / "results")
    assert len((PointStore(lab / "results/points").read(point.key) or {})["restarts"]) == 1


def test_recorded_labs_are_drawn_again_without_a_server(lab: Path, tmp_path: Path) -> None:
    export(lab / "results", tmp_path / "recorded")
    config = {**small_lab(), "recorded": str(tmp_path / "recorded")}
    for name, plan in load_study(config).labs.items():
        run_lab(plan, tmp_path / "results", StopWatch(), sys.stderr)
        assert MadeServers.last.measured == []
        again, before = made(plan, tmp_path / "results")["claims"], made(plan, lab / "results")["claims"]
        told = ["id", "effect", "low", "high", "blocks", "verdict"]
        pd.testing.assert_frame_equal(again[told], before[told])
        assert json.loads((tmp_path / "results/labs" / f"{name}.json").read_text())["lab"] == name


def test_a_lab_can_be_run_in_parts_until_a_time(tmp_path: Path) -> None:
    plan = made_plan()
    assert {block for _, block in measured(part_of(plan, [], [2, 3]), tmp_path)} == {1, 2}
    rest = measured(part_of(plan, ["mock"], []), tmp_path)
    assert {block for _, block in rest} == {0, 3, 4, 5}, "what was measured is not measured again"
    with pytest.raises(UserError, match="--block: lab 01 has blocks 1 to 6, not 7"):
        part_of(plan, [], [7])
    with pytest.raises(UserError, match="engine"):
        part_of(plan, ["sglang"], [])


def test_a_run_ends_when_its_time_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    class UntilTheEnd(MadeServers):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.watch = arguments[4]

        def measure(self, named: Any) -> None:
            super().measure(named)
            until(lambda: bool(self.watch.reason))
            self.watch.check()

    monkeypatch.setattr("memgap.labs.run.Servers", UntilTheEnd)
    file = tmp_path / "plan.json"
    file.write_text(canonical_json(made_plan()))
    assert command.main(["--plan", str(file), "--results", str(tmp_path / "results"), "--seconds", "0.1"]) == 1
    assert "0.1 s are over" in capfd.readouterr().err
    assert len(MadeServers.last.measured) == 1
