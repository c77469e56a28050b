"""What a race measures, what it leaves out, what it measures again, and what the tables say; on made servers."""

import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from memgap.commands.listing import cost, list_points
from memgap.errors import UserError
from memgap.points.point import Record
from memgap.session.watch import StopWatch
from memgap.store.points import PointStore
from memgap.tables.forms import write_contents
from memgap.tables.inputs import Inputs
from memgap.tuning.outcome import Outcome
from memgap.tuning.results import ORIGINAL, READ, TABLE, make
from memgap.tuning.run import run_tuning
from memgap.workflow import load_study
from tests.support.drawing import draw, reading
from tests.support.races import MadeServers, made_servers
from tests.support.tunings import tuning_config, tuning_plan

TIERS: dict[str, Any] = {
    "speed": {"experiments": {"step": {"server": {"speed": [500.0, 990.0, 1500.0]}}}},
    "memory": {"experiments": {"blocks": {"server": {"block-size": [32]}}, "more": {"server": {"speed": 1600.0}}}},
}
FLAT: dict[str, Any] = {"fixed": {"server": {}}, "blocks": {"least": 3, "most": 5}, "screen_fraction": 0.3}
Tuned = tuple[Path, Record, list[Outcome]]


def settings(**changes: Any) -> dict[str, Any]:
    """Return the configuration of the toy on made servers."""
    return tuning_config(**{**FLAT, "tiers": TIERS, **changes})


def race(plan: Record, results: Path) -> tuple[list[Outcome], str]:
    """Run a tuning; returns its outcomes and what it said."""
    said = io.StringIO()
    return run_tuning(plan, results, StopWatch(), said), said.getvalue()


def write_tables(plan: Any, results: Path) -> None:
    """Write the tables of a tuning as the workflow does."""
    paths = {name: results.parent / path.replace("{group}", "toy") for name, path in TABLE.writes.items()}
    paths = {name: results / path.relative_to(results.parent / "results") for name, path in paths.items()}
    write_contents(make(Inputs(plan=plan, points=results / "points")), paths, TABLE.digits)


@pytest.fixture
def tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tuned:
    """Run the two tiers of the toy, tables included."""
    made_servers(monkeypatch)
    plan = tuning_plan(settings(usd_per_gpu_hour={"GPU": 9.0, "TEST GPU": 3.6}))
    outcomes, _ = race(plan, tmp_path)
    write_tables(plan, tmp_path)
    return tmp_path, plan, outcomes


def test_the_first_tier_finds_the_winner_and_the_second_builds_on_it(tuned: Tuned) -> None:
    _, _, (speed, memory) = tuned
    assert speed["winner"]["arguments"]["server"] == {"speed": 1500.0}
    assert "speed 1500.0 is better than default in output tok/s per GPU: +" in speed["statement"]
    assert [arm["label"] for arm in memory["arms"]] == ["the winner so far", "default", "block-size 32", "speed 1600.0"]
    assert memory["arms"][2]["server_args"] == {"block-size": 32, "speed": 1500.0}
    assert memory["reference"] == speed["winner"]["name"] and memory["default"] == speed["default"]
    assert memory["winner"]["arguments"]["server"] == {"speed": 1600.0}
    states = {arm["label"]: arm["state"] for arm in speed["arms"]}
    assert states["speed 500.0"] == "screened" and states["speed 1500.0"] == "winner"


def test_blocks_are_repeats_of_normal_points_on_the_same_requests(tuned: Tuned) -> None:
    results, _, outcomes = tuned
    store = PointStore(results / "points")
    repeats: dict[str, set[int]] = {}
    datasets = set()
    for outcome in outcomes:
        for key in (key for arm in outcome["arms"] for key in arm["points"]):
            point = store.read(key)
            assert point is not None
            repeats.setdefault(outcome["tier"], set()).add(point["record"]["repeat"])
            datasets.add((point["record"]["dataset"]["key"], point["record"]["load"]["requests"]))
    assert repeats["speed"] == set(range(outcomes[0]["blocks"]))
    assert repeats["memory"] == {100 + block for block in range(outcomes[1]["blocks"])}
    assert len(datasets) == 1


def test_a_second_run_measures_nothing_and_decides_the_same(tuned: Tuned) -> None:
    results, plan, outcomes = tuned
    again, _ = race(plan, results)
    assert MadeServers.last.measured == []
    assert json.loads(json.dumps(again)) == json.loads(json.dumps(outcomes))


def test_a_stopped_race_goes_on_where_it_was(tuned: Tuned) -> None:
    results, plan, (speed, memory) = tuned
    gone = memory["arms"][0]["points"][-1]
    for path in (results / "points" / gone).iterdir():
        path.unlink()
    (results / "points" / gone).rmdir()
    again, _ = race(plan, results)
    assert MadeServers.last.measured == [gone]
    assert again[0]["winner"] == speed["winner"]


def test_the_order_within_blocks_changes_and_follows_from_the_seed(tmp_path: Path, monkeypatch: Any) -> None:
    made_servers(monkeypatch)
    orders = {}
    for place, seed in ((0, 0), (1, 0), (2, 1)):
        tiers = {"speed": {"experiments": {"e": {"server": {"speed": [1001.0, 1002.0, 1003.0]}}}}}
        race(tuning_plan(settings(tiers=tiers, seed=seed)), tmp_path / str(place))
        labels = [label.partition(" (")[2] for label in MadeServers.last.labels]
        orders[place] = [tuple(labels[i : i + 4]) for i in range(0, len(labels), 4)]
    assert orders[0] == orders[1] != orders[2]
    assert len(set(orders[0])) > 1


def test_the_list_knows_the_points(tuned: Tuned, tmp_path: Path) -> None:
    results, _, outcomes = tuned
    study = load_study(settings(usd_per_gpu_hour={"GPU": 9.0, "TEST GPU": 3.6}))
    rows = list_points(study, results)
    assert {row.state for row in rows} == {"ok"}
    assert len(rows) == sum(len(arm["points"]) for one in outcomes for arm in one["arms"])
    (results / "tuning/toy/tiny-opt/short/memory.json").unlink()
    assert {row.experiment for row in list_points(study, results)} >= {"memory/blocks", "memory/the winner so far"}
    fresh = list_points(study, tmp_path / "none", "toy")
    assert len(fresh) == 4 * 3 and {row.state for row in fresh} == {"missing"}, "the first blocks of the first tier"
    assert cost(fresh, tmp_path / "none")[0] == 12


def test_tables_have_the_expected_columns_and_formulas(tuned: Tuned) -> None:
    results, _, _ = tuned
    folder = results / "tuning/toy"
    table = pd.read_csv(folder / "benchmarking_results.csv")
    assert tuple(table.columns[: len(ORIGINAL)]) == ORIGINAL
    row = table[(table["state"] == "winner") & (table["tier"] == "speed")].iloc[0]
    assert row["output_tps_per_gpu"] == pytest.approx(1500, rel=0.01)
    assert row["gpu_days_to_process_1b_tokens"] == pytest.approx(1e9 / row["output_tps_per_gpu"] / 86400, rel=1e-3)
    assert row["node_days_to_process_1b_tokens"] == pytest.approx(row["gpu_days_to_process_1b_tokens"] / 8)
    assert row["gpus_for_1b_tokens_per_hour"] == pytest.approx(1e9 / row["output_tps_per_gpu"] / 3600, rel=1e-3)
    dollars = 3.6 / 3600 / row["output_tps_per_gpu"] * 1e6
    assert row["usd_per_million_output_tokens"] == pytest.approx(dollars), "the longest fitting name's price"
    assert row["usd_per_million_tokens"] == pytest.approx(dollars / 1.25)
    assert row["energy_per_output_token_j"] == pytest.approx(700 / 1500, rel=0.01)
    assert row["e2e_time"] - row["inference_time"] == pytest.approx(30)
    assert (folder / "experiments/step.csv").exists() and len(pd.read_csv(folder / "experiments/blocks.csv")) == 1
    summary = pd.read_csv(folder / "optimization_summary.csv").iloc[0]
    assert summary["tier0_params"] == "speed 1500.0" and summary["overall_params"] == "speed 1600.0"
    assert summary["tier0_speedup"] == pytest.approx(1.5, rel=0.02)
    assert summary["overall_speedup"] == pytest.approx(1.6, rel=0.02)
    assert summary["tier1_gain_low"] < 1600 / 1500 - 1 < summary["tier1_gain_high"]
    assert summary["overall_server_args"] == "--speed 1600.0" and summary["confidence"] == pytest.approx(0.95)


def test_every_kind_of_parallelism_divides_the_throughput(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_servers(monkeypatch)
    server = {"tensor-parallel-size": 2, "pipeline-parallel-size": 2, "data-parallel-size": [1, 2], "speed": 4000.0}
    plan = tuning_plan(settings(tiers={"wide": {"experiments": {"p": {"server": server}}}}, gpus=8))
    (outcome,), _ = race(plan, tmp_path)
    write_tables(plan, tmp_path)
    table = pd.read_csv(tmp_path / "tuning/toy/benchmarking_results.csv").set_index("dp")
    assert table.loc[2, "gpus"] == 8
    assert table.loc[2, "output_tps_per_gpu"] == pytest.approx(4000 / 8, rel=0.02)
    assert outcome["winner"]["name"] == outcome["default"]["name"], "1000 tok/s on one GPU are more than 4000 on eight"


@pytest.mark.parametrize("name", reading("tuning.results"))
def test_figures_are_drawn_from_the_table(name: str, tuned: Tuned) -> None:
    results, _, _ = tuned
    table = READ["results"].read(results / "tuning/toy/benchmarking_results.csv")
    figure, data = draw(name, Inputs({"tuning.results": table}))
    assert len(data) > 0 and figure.axes
    assert "SIMULATED" in figure.get_supxlabel() and "TEST GPU" in figure.get_supxlabel()


def test_an_effect_is_among_configurations_that_are_alike_in_all_else(tuned: Tuned) -> None:
    results, _, _ = tuned
    table = READ["results"].read(results / "tuning/toy/benchmarking_results.csv").head(4).copy()
    table[["model", "tier", "blocks", "source"]] = ["m", "t", 3, "recorded"]
    flags = [{}, {"seats": 32}, {"seats": 48}, {"step": 1024}]
    table["server_args"] = [json.dumps(one) for one in flags]
    table["output_tps_per_gpu"] = [100.0, 50.0, 60.0, 90.0]
    figure, data = draw("factors", Inputs({"tuning.results": table}))
    step = data[data["factor"] == "step"].set_index("value")
    assert list(step.index) == ["not given", "1024"], "seats of 32 and 48 say nothing of the step"
    assert step["relative_percent"].iloc[0] > 0 > step["relative_percent"].iloc[1]
    assert len(data[data["factor"] == "seats"]) == 3
    assert "recorded data" in figure.get_supxlabel()


@pytest.mark.parametrize(
    ("status", "kind", "skipped"),
    [
        ("oom", "oom", True),
        ("start_timeout", "timeout", True),
        ("client_timeout", "timeout", True),
        ("crash", "server_failure", True),
        ("bad_config", "bad_config", True),
        ("request_errors", "request_errors", False),
    ],
)
def test_failures_have_classes_that_are_skipped_or_tried_again(
    status: str, kind: str, skipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_servers(monkeypatch)
    tiers = {"speed": {"experiments": {"bad": {"server": {"fails": status}}}}}
    plan = tuning_plan(settings(tiers=tiers))
    (outcome,), _ = race(plan, tmp_path)
    (bad,) = [arm for arm in outcome["arms"] if arm["experiment"] == "bad"]
    assert (bad["state"], bad["left_after"]) == ("failed", 1) and bad["reason"].startswith(f"{kind}: it was {status}")
    assert outcome["winner"]["name"] == outcome["default"]["name"]
    race(plan, tmp_path)
    assert len(MadeServers.last.measured) == (0 if skipped else 1)
    race(tuning_plan(settings(tiers=tiers, skip_failure_reasons="none")), tmp_path)
    assert MadeServers.last.measured == bad["points"][:1], "none skips nothing"
    write_tables(plan, tmp_path)
    table = pd.read_csv(tmp_path / "tuning/toy/benchmarking_results.csv")
    assert table["comment"].str.startswith(kind).sum() == 1


def test_what_cannot_be_believed_is_measured_once_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_servers(monkeypatch)
    tiers = {"speed": {"experiments": {"a": {"server": {"doubt": [True], "mends": [True, False], "speed": 2000.0}}}}}
    (outcome,), _ = race(tuning_plan(settings(tiers=tiers)), tmp_path)
    states = {arm["server_args"].get("mends"): (arm["state"], arm["reason"]) for arm in outcome["arms"]}
    assert states[True] == ("winner", "")
    assert states[False] == ("failed", "invalid: the client was late")


def test_a_race_may_end_at_the_first_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_servers(monkeypatch)
    tiers = {"speed": {"experiments": {"bad": {"server": {"fails": "oom"}}}}}
    with pytest.raises(UserError, match="continue_on_failure is false"):
        race(tuning_plan(settings(tiers=tiers, continue_on_failure=False)), tmp_path)
    assert list(tmp_path.glob("points/*")), "what was measured is kept"


def test_a_budget_ends_a_race_before_a_block_that_would_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_servers(monkeypatch)
    tiers = {"speed": {"experiments": {"e": {"server": {"speed": [1001.0]}}}}}
    block_min = 2 * (30.0 + 1.6) / 60
    (outcome,), _ = race(tuning_plan(settings(tiers=tiers, budget_min=2.5 * block_min)), tmp_path)
    assert outcome["blocks"] == 2 and "the budget allows no further block" in outcome["finished"]
    assert outcome["statement"].startswith("Not decided: 2 blocks measured, 3 are needed; default stays")
    kept, _ = race(tuning_plan(settings(tiers=tiers, budget_min=2.5 * block_min, servers="together")), tmp_path / "x")
    assert kept[0]["blocks"] > 2, "servers that stay up cost their start once"


def test_the_default_is_the_first_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_servers(monkeypatch)
    default: dict[str, Any] = {"server": {"fails": ["oom", None]}}
    (outcome, _), _ = race(tuning_plan(settings(default=default)), tmp_path)
    assert outcome["default"]["arguments"]["server"].get("fails") is None
    assert outcome["refused"][0] == {"experiment": "default", "reason": "fails oom: oom: it was oom"}


def test_a_tuning_that_fails_altogether_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_servers(monkeypatch)
    outcomes, said = race(tuning_plan(settings(fixed={"server": {"fails": "oom"}})), tmp_path)
    assert len(outcomes) == 1 and outcomes[0]["winner"] is None
    assert "every configuration failed" in said


def test_a_combination_with_the_winner_that_cannot_be_is_left_out_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_servers(monkeypatch)
    tiers = {
        "seats": {"experiments": {"s": {"server": {"max-num-seqs": [512], "speed": 2000.0}}}},
        "step": {"experiments": {"t": {"server": {"max-num-batched-tokens": [256, 1024]}}}},
    }
    plan = tuning_plan(settings(tiers=tiers))
    (_, step), _ = race(plan, tmp_path)
    assert "max-num-batched-tokens 256 is below max-num-seqs 512" in step["refused"][0]["reason"]
    write_tables(plan, tmp_path)
    table = pd.read_csv(tmp_path / "tuning/toy/benchmarking_results.csv")
    assert (table["state"] == "refused").sum() == 1


def test_equal_configurations_of_really_noisy_servers_are_no_winner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_servers(monkeypatch)
    tiers = {"aa": {"experiments": {"e": {"env": {"ARM": ["1", "2", "3"]}, "server": {"noise": 0.02}}}}}
    won = 0
    for seed in range(10):
        config = settings(tiers=tiers, default={"server": {"noise": 0.02}}, seed=seed)
        config["datasets"]["short"]["seed"] = seed
        (outcome,), _ = race(tuning_plan(config), tmp_path / str(seed))
        won += outcome["winner"]["name"] != outcome["default"]["name"]
    assert won <= 1
