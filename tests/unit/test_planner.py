"""The fleet planner against enumeration of all placements, and what it says when nothing fits."""

import functools
import itertools
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from memgap.config.load import check_config
from memgap.errors import UserError
from memgap.planner.__main__ import main
from memgap.planner.fleet import Demand, Fleet, GpuKind, fleet_of, read_fleet
from memgap.planner.options import GIB, Choices, Menu, Option, menu_of
from memgap.planner.program import INFEASIBLE, OPTIMAL, TIME_LIMIT, UNSOLVED, Group, Solution, solve
from memgap.planner.report import COLUMNS, placement_table, plan_for, write_plan
from memgap.study.plan import plan_of
from memgap.study.study import expand_study
from memgap.tables.forms import write_table
from memgap.tables.points import as_table
from tests.support.records import small_config
from tests.support.waiting import LAST_RESORT_S


def rows_of(model: str, caps: Mapping[int, tuple[float, float, float]], **changes: Any) -> list[dict[str, Any]]:
    """Return one row a cap from cap -> (tok/s, ITL in ms, GiB of memory that a replica needs with a margin of 0).

    The server was measured on a GPU of 100 GiB with 10 GiB of weights and the rest as its pool.
    """
    return [
        {
            "model": model,
            "status": "ok",
            "flags": "",
            "device": "cuda",
            "gpu_name": "TEST GPU",
            "server_args": '{"max-model-len":2048}',
            "batch_cap": cap,
            "total_throughput_tok_s": tok_s,
            "itl_mean_ms": itl_ms,
            "kv_cache_usage_max_fraction": (gib - 10) / 90,
            "kv_pool_bytes": 90.0 * GIB,
            "weights_bytes": 10.0 * GIB,
            "gpu_memory_bytes": 100.0 * GIB,
            "gpu_memory_utilization": 1.0,
            **changes,
        }
        for cap, (tok_s, itl_ms, gib) in caps.items()
    ]


SMALL = {1: (100.0, 10.0, 12.0), 32: (1000.0, 20.0, 20.0), 128: (1500.0, 60.0, 60.0)}
LARGE = {1: (50.0, 20.0, 40.0), 16: (400.0, 40.0, 50.0)}


def table() -> pd.DataFrame:
    """Return the made-up points of two models."""
    return as_table(rows_of("small", SMALL) + rows_of("large", LARGE))


def fleet(**changes: Any) -> Fleet:
    """Return a fleet of two GPUs of 100 GiB for 1000 tok/s of the small model."""
    content: dict[str, Any] = {
        "gpus": [{"name": "a", "count": 2, "memory_gib": 100}],
        "models": {"small": {"demand_tok_s": 1000, "slo": {"ms": 30}}},
        "memory_margin": 0,
    }
    return fleet_of({**content, **changes}, "fleet")


# --- against enumeration


def multisets(options: Sequence[Option], limit: int) -> Iterator[tuple[Option, ...]]:
    """Yield every choice of replicas that fits into `limit` permille."""
    yield ()
    for first, option in enumerate(options):
        if option.permille <= limit:
            for rest in multisets(options[first:], limit - option.permille):
                yield (option, *rest)


def most_served(
    gpus: Sequence[tuple[GpuKind, tuple[Option, ...]]], menu: Menu, asked: Mapping[str, float], models: Sequence[str]
) -> float:
    """Return the greatest sum of shares that these models can take: the least cut between demand and GPUs."""

    def share(kind: GpuKind, held: tuple[Option, ...], chosen: Sequence[str]) -> float:
        ceilings = menu[kind.name]
        return min(
            1.0, sum(one.throughput_tok_s / ceilings[one.model].ceiling_tok_s for one in held if one.model in chosen)
        )

    return min(
        sum(asked[model] for model in models if model not in cut) + sum(share(kind, held, cut) for kind, held in gpus)
        for size in range(len(models) + 1)
        for cut in itertools.combinations(models, size)
    )


def by_enumeration(goal: str, groups: Sequence[Group], menu: Menu, demands: Sequence[Demand]) -> float | None:
    """Return the best value of a goal over all placements, None where none serves.

    All kinds have the same ceilings here. Then the shares that a placement can serve are a polymatroid, on which taking
    the models by falling worth of a share is best.
    """
    kinds = [group.kind for group in groups for _ in range(group.count)]
    choices = {
        group.kind.name: list(
            multisets(
                [option for one in demands for option in menu[group.kind.name][one.model].options],
                group.kind.limit_permille,
            )
        )
        for group in groups
    }
    ceilings = {one.model: menu[kinds[0].name][one.model].ceiling_tok_s for one in demands}
    asked = {one.model: one.demand_tok_s / ceilings[one.model] for one in demands}
    order = sorted(demands, key=lambda one: -one.weight * ceilings[one.model])
    best: float | None = None
    for placement in _placements(groups, choices):
        counts = [option.model for held in placement for option in held]
        if any(
            not one.min_replicas
            <= counts.count(one.model)
            <= (math.inf if one.max_replicas is None else one.max_replicas)
            for one in demands
        ):
            continue
        gpus = list(zip(kinds, placement, strict=True))
        names = [one.model for one in order]
        if goal == "gpus":
            if most_served(gpus, menu, asked, names) < sum(asked.values()) * (1 - 1e-9):
                continue
            used = float(sum(bool(held) for held in placement))
            best = used if best is None else min(best, used)
            continue
        value = before = 0.0
        for number, one in enumerate(order):
            after = most_served(gpus, menu, asked, names[: number + 1])
            value += one.weight * ceilings[one.model] * (after - before)
            before = after
        best = value if best is None else max(best, value)
    return best


def _placements(
    groups: Sequence[Group], choices: Mapping[str, list[tuple[Option, ...]]]
) -> Iterator[tuple[tuple[Option, ...], ...]]:
    equal = [itertools.combinations_with_replacement(choices[group.kind.name], group.count) for group in groups]
    for parts in itertools.product(*equal):
        yield tuple(held for part in parts for held in part)


def random_case(seed: int) -> tuple[list[Group], Menu, list[Demand]]:
    """Return a small fleet: one or two kinds of GPU, two or three models, one to three caps each."""
    draw = random.Random(seed)
    models = [f"m{number}" for number in range(draw.choice([2, 2, 3]))]
    counts = draw.choice([[1], [2], [3], [1, 1], [2, 1]])
    groups = [
        Group(GpuKind(f"k{number}", count, draw.choice([40, 64]), 0.9, None), count)
        for number, count in enumerate(counts)
    ]
    menu: dict[str, dict[str, Choices]] = {group.kind.name: {} for group in groups}
    demands = []
    efficiency = draw.choice([1.0, 0.8])
    for model in models:
        profile = [
            (cap, draw.randint(2, 9) * 100.0 * (1 + number), draw.randint(9, 20) + 6 * number)
            for number, cap in enumerate([1, 8, 64][: draw.randint(1, 3)])
        ]
        ceiling = max(tok_s for _, tok_s, _ in profile) * draw.choice([1.0, 1.3])
        for group in groups:
            options = []
            for cap, tok_s, gib in profile:
                size = math.ceil(1000 * gib / group.kind.memory_gib)
                if size > group.kind.limit_permille:
                    continue
                if efficiency < 1:
                    options.append(Option(model, cap, tok_s, 5.0, group.kind.limit_permille, size, True, ()))
                options.append(Option(model, cap, tok_s * efficiency, 5.0, size, size, False, ()))
            menu[group.kind.name][model] = Choices(ceiling, tuple(options), None)
        fewest = draw.choice([0, 0, 0, 1])
        most = draw.choice([None, None, fewest + 1])
        demands.append(
            Demand(model, draw.randint(1, 12) * 150.0, draw.choice([1.0, 2.5]), "itl_mean_ms", 30.0, fewest, most)
        )
    return groups, menu, demands


@functools.cache
def best_of_case(goal: str, seed: int) -> float | None:
    """Return the best value of a random case, enumerated once."""
    return by_enumeration(goal, *random_case(seed))


@pytest.mark.parametrize("goal", ["throughput", "gpus"])
@pytest.mark.parametrize("seed", range(20))
def test_the_program_finds_what_enumeration_finds(goal: str, seed: int) -> None:
    groups, menu, demands = random_case(seed)
    found = solve(goal, groups, menu, demands, 60)
    best = best_of_case(goal, seed)
    if best is None:
        assert found.status == INFEASIBLE
        return
    assert found.status == OPTIMAL
    assert found.value == pytest.approx(best, rel=1e-6, abs=1e-6)
    _check_placement(found.placed, groups, menu, demands, goal)


def test_the_random_cases_are_of_all_sorts() -> None:
    values = [best_of_case("gpus", seed) for seed in range(20)]
    assert {None, 1.0, 2.0} <= set(values)
    assert values.count(None) < 14


def _check_placement(
    placed: Sequence[Any], groups: Sequence[Group], menu: Menu, demands: Sequence[Demand], goal: str
) -> None:
    for group, gpu in {(one.group, one.gpu) for one in placed}:
        kind = groups[group].kind
        held = [one for one in placed if (one.group, one.gpu) == (group, gpu)]
        assert gpu < groups[group].count
        assert sum(one.option.permille * one.replicas for one in held) <= kind.limit_permille
        shares = sum(one.served_tok_s / menu[kind.name][one.option.model].ceiling_tok_s for one in held)
        assert shares <= 1 + 1e-6
        assert all(one.served_tok_s <= one.option.throughput_tok_s * one.replicas * (1 + 1e-6) for one in held)
    for demand in demands:
        served = sum(one.served_tok_s for one in placed if one.option.model == demand.model)
        replicas = sum(one.replicas for one in placed if one.option.model == demand.model)
        assert replicas >= demand.min_replicas
        assert demand.max_replicas is None or replicas <= demand.max_replicas
        assert served <= demand.demand_tok_s * (1 + 1e-6) or goal == "gpus"
        assert served >= demand.demand_tok_s * (1 - 1e-6) or goal == "throughput"


@pytest.mark.parametrize("goal", ["throughput", "gpus"])
def test_five_models_eight_caps_sixteen_gpus_are_solved_to_the_end(goal: str) -> None:
    draw = random.Random(1)
    kind = GpuKind("a", 16, 140.0, 0.9, None)
    menu: dict[str, dict[str, Choices]] = {"a": {}}
    demands = []
    for number in range(5):
        weights, top, half = draw.choice([3, 5, 14, 26]), draw.uniform(5e3, 4e4), draw.uniform(10, 80)
        options = []
        for cap in (1, 4, 16, 32, 64, 96, 128, 256):
            size = math.ceil(1000 * (weights + 2 + cap * draw.uniform(0.05, 0.2)) / kind.memory_gib)
            options.append(Option(f"m{number}", cap, top * cap / (cap + half), 5.0, size, size, False, ()))
        ceiling = options[-1].throughput_tok_s
        menu["a"][f"m{number}"] = Choices(ceiling, tuple(options), None)
        demands.append(Demand(f"m{number}", 2.5 * ceiling, 1.0, "itl_mean_ms", None, 0, None))
    found = solve(goal, [Group(kind, 16)], menu, demands, LAST_RESORT_S)
    assert found.status == OPTIMAL
    assert len(found.gpus) >= 13
    _check_placement(found.placed, [Group(kind, 16)], menu, demands, goal)


# --- from the table


def test_a_replica_needs_the_advisors_memory_and_keeps_its_slo() -> None:
    found = menu_of(table(), fleet())["a"]["small"]
    assert found.ceiling_tok_s == 1500.0
    assert [(one.batch_cap, one.throughput_tok_s, one.permille) for one in found.options] == [
        (1, 100.0, 120),
        (32, 1000.0, 200),
    ]
    assert found.options[1].flags == (
        "--max-num-seqs",
        "32",
        "--gpu-memory-utilization",
        "0.200",
        "--max-model-len",
        "2048",
    )


def test_another_size_of_gpu_takes_another_share() -> None:
    half = fleet(gpus=[{"name": "a", "count": 1, "memory_gib": 50}])
    assert [one.permille for one in menu_of(table(), half)["a"]["small"].options] == [240, 400]


def test_points_of_several_replicas_raise_the_ceiling_only() -> None:
    points = pd.concat(
        [table().assign(replicas=1), as_table(rows_of("small", {32: (2600.0, 25.0, 20.0)})).assign(replicas=4)]
    )
    found = menu_of(points, fleet())["a"]["small"]
    assert found.ceiling_tok_s == 2600.0
    assert [one.throughput_tok_s for one in found.options] == [100.0, 1000.0]


def test_failed_and_invalid_points_are_no_options_and_no_ceiling() -> None:
    points = as_table(
        [
            *rows_of("small", {32: SMALL[32]}),
            *rows_of("small", {64: (9000.0, 1.0, 20.0)}, verdict="invalid", verdict_reasons="x"),
            *rows_of("small", {128: (9000.0, 1.0, 20.0)}, flags="preempted"),
        ]
    )
    found = menu_of(points, fleet())["a"]["small"]
    assert (found.ceiling_tok_s, len(found.options)) == (1000.0, 1)


def test_replicas_beside_others_are_slower_by_the_efficiency() -> None:
    found = menu_of(table(), fleet(sharing_efficiency=0.5))["a"]["small"]
    assert [(one.batch_cap, one.throughput_tok_s, one.latency_ms, one.exclusive) for one in found.options] == [
        (1, 100.0, 10.0, True),
        (1, 50.0, 20.0, False),
        (32, 1000.0, 20.0, True),
    ]


def test_two_gpus_in_the_table_have_to_be_told_apart() -> None:
    points = as_table(rows_of("small", SMALL) + rows_of("small", {32: (3000.0, 5.0, 20.0)}, gpu_name="FAST GPU"))
    with pytest.raises(UserError, match="measured on FAST GPU and TEST GPU; say with measured_on"):
        menu_of(points, fleet())
    chosen = fleet(gpus=[{"name": "a", "count": 1, "memory_gib": 100, "measured_on": "FAST"}])
    assert menu_of(points, chosen)["a"]["small"].ceiling_tok_s == 3000.0
    absent = fleet(gpus=[{"name": "a", "count": 1, "memory_gib": 100, "measured_on": "H999"}], objective="gpus")
    assert "was measured on a GPU whose name has 'H999'" in plan_for(points, absent)["sentence"]


def test_a_plan_is_a_document_and_a_table(tmp_path: Path) -> None:
    write_table(table(), tmp_path / "t.parquet", tmp_path / "t.csv")
    content = {
        "objective": "gpus",
        "gpus": [{"name": "a", "count": 2, "memory_gib": 100}],
        "models": {"small": {"demand_tok_s": 1200, "slo": {"ms": 30}}, "large": {"demand_tok_s": 80}},
        "memory_margin": 0,
    }
    (tmp_path / "fleet.yaml").write_text(yaml.safe_dump(content))
    files = [
        "--fleet",
        str(tmp_path / "fleet.yaml"),
        "--out",
        str(tmp_path / "p.yaml"),
        "--csv",
        str(tmp_path / "p.csv"),
    ]
    assert main(["--table", str(tmp_path / "t.parquet"), *files]) == 0
    plan = yaml.safe_load((tmp_path / "p.yaml").read_text())
    assert plan["status"] == "optimal"
    assert plan["gpus_used"] == 1
    assert plan["sentence"] == "1 of 2 GPUs serve all of the 1,280 tok/s asked for; fewer GPUs cannot."
    assert plan["gpus"][0]["share_of_ceiling_fraction"] == pytest.approx(1200 / 1500 + 80 / 400)
    assert plan["gpus"][0]["memory_fraction"] <= 0.9
    placement = pd.read_csv(tmp_path / "p.csv")
    assert list(placement.columns) == list(COLUMNS)
    assert placement.groupby("model")["served_tok_s"].sum().to_dict() == pytest.approx({"small": 1200.0, "large": 80.0})
    assert placement["flags"].str.startswith("--max-num-seqs ").all()


def test_sharing_does_not_add_up_linearly() -> None:
    one_gpu = fleet(
        gpus=[{"name": "a", "count": 1, "memory_gib": 100}], models={"small": {"demand_tok_s": 9999, "slo": {"ms": 30}}}
    )
    plan = plan_for(table(), one_gpu)
    assert plan["models"][0]["replicas"] == 2
    assert plan["models"][0]["served_tok_s"] == pytest.approx(1500.0)
    assert plan["sentence"].startswith("1 of 1 GPU serve 1,500 tok/s, 15.0% of the 9,999 tok/s asked for; no other")


def test_weights_decide_who_is_served() -> None:
    asked = {"small": {"demand_tok_s": 1500}, "large": {"demand_tok_s": 400, "weight": 10}}
    plan = plan_for(table(), fleet(gpus=[{"name": "a", "count": 1, "memory_gib": 100}], models=asked))
    assert [one["served_fraction"] for one in plan["models"]] == [0.0, 1.0]


# --- what cannot be done, and why


def infeasible(**changes: Any) -> list[str]:
    """Return what a plan of the made-up points says has to be relaxed."""
    plan = plan_for(table(), fleet(**{"objective": "gpus", **changes}))
    assert plan["status"] == "infeasible"
    assert plan["sentence"] == plan["relax"][0]
    assert plan["placement"] == []
    yaml.safe_load(write_plan(plan))
    assert list(placement_table(plan).columns) == list(COLUMNS)
    relax: list[str] = plan["relax"]
    return relax


def test_an_slo_below_every_latency_names_the_lowest() -> None:
    assert infeasible(models={"small": {"demand_tok_s": 1, "slo": {"ms": 5}}}) == [
        "No cap of small keeps its SLO of 5 ms (itl_mean_ms): the lowest measured latency is 10 ms at cap 1; "
        "an SLO of at least that would admit it."
    ]


def test_a_model_larger_than_every_gpu_names_both_sizes() -> None:
    kinds = [{"name": "a", "count": 9, "memory_gib": 24}, {"name": "b", "count": 1, "memory_gib": 40}]
    (said,) = infeasible(gpus=kinds, models={"large": {"demand_tok_s": 1}})
    assert "large at cap 1 needs 40.0 GiB" in said
    assert "the largest GPU (b) offers 36.0 GiB, 90% of 40 GiB" in said


def test_too_much_demand_names_the_most_and_the_gpus_that_would_do() -> None:
    said = infeasible(models={"small": {"demand_tok_s": 5000, "slo": {"ms": 30}}})
    assert said == [
        "The demand of 5,000 tok/s cannot be served with the given GPUs. The most that can be served is 3,000 tok/s, "
        "such as small 3,000 tok/s of 5,000 tok/s.",
        "2 more GPUs of the kind a would do.",
    ]


def test_far_too_much_demand_is_bounded() -> None:
    said = infeasible(models={"small": {"demand_tok_s": 1e6}})
    assert said[1] == "More than 64 more GPUs of the kind a would be needed; 667 in all at least."


def test_a_kind_that_cannot_hold_a_model_is_not_proposed() -> None:
    kinds = [{"name": "a", "count": 1, "memory_gib": 100}, {"name": "b", "count": 1, "memory_gib": 24}]
    said = infeasible(gpus=kinds, models={"large": {"demand_tok_s": 700}})
    assert said[1:] == ["1 more GPU of the kind a would do."]


def test_too_few_replicas_allowed_says_how_many_would_do() -> None:
    asked = {"small": {"demand_tok_s": 1600, "slo": {"ms": 30}, "max_replicas": 1}}
    assert infeasible(models=asked) == [
        "max_replicas 1 of small yields at most 1,000 tok/s of the 1,600 tok/s asked for; at least 2 would do."
    ]


@pytest.mark.parametrize("objective", ["gpus", "throughput"])
def test_replicas_that_do_not_fit_are_counted(objective: str) -> None:
    asked = {"large": {"demand_tok_s": 10, "min_replicas": 5}}
    (said,) = infeasible(models=asked, objective=objective)
    assert said.startswith("min_replicas 5 of large cannot be placed with those of the others: 4 fit;")


def test_throughput_goes_on_without_a_model_that_cannot_be_placed_and_says_so() -> None:
    asked = {"small": {"demand_tok_s": 500}, "large": {"demand_tok_s": 10, "slo": {"ms": 1}}}
    plan = plan_for(table(), fleet(models=asked))
    assert plan["status"] == "optimal"
    assert [one["served_tok_s"] for one in plan["models"]] == [500.0, 0.0]
    assert "No cap of large keeps its SLO of 1 ms" in plan["notes"][0]


def test_a_fleet_that_can_serve_nothing_says_why() -> None:
    plan = plan_for(table(), fleet(models={"small": {"demand_tok_s": 10, "slo": {"ms": 1}}}))
    assert plan["sentence"].startswith(
        "0 of 2 GPUs serve 0 tok/s, 0.0% of the 10 tok/s asked for. No cap of small keeps"
    )


def test_a_fleet_of_the_configuration_is_a_plan_of_its_own() -> None:
    content = {
        "sweeps": ["small"],
        "gpus": [{"name": "a", "count": 1, "memory_gib": 80}],
        "models": {"m": {"demand_tok_s": 1}},
    }
    config = check_config({**small_config(), "fleets": {"f": content}})
    plan = plan_of(expand_study(config), "fleet", "f")
    assert fleet_of({name: value for name, value in plan.items() if name != "sweeps"}, "f").objective == "throughput"
    with pytest.raises(UserError, match=r"fleets.f.sweeps: unknown sweep 'smal'"):
        check_config({**small_config(), "fleets": {"f": {**content, "sweeps": ["smal"]}}})


def test_the_example_of_a_fleet_can_be_read() -> None:
    assert read_fleet(Path(__file__).resolve().parents[2] / "config/fleet.example.yaml").objective == "gpus"


def test_nothing_measured_and_no_memory_known() -> None:
    failed = as_table(rows_of("small", SMALL, status="oom"))
    assert (
        "No cap of small can be judged (cap 1: not measured: oom"
        in plan_for(failed, fleet(objective="gpus"))["sentence"]
    )
    cpu = as_table(rows_of("small", SMALL, device="cpu"))
    assert "memory that small needs is unknown" in plan_for(cpu, fleet(objective="gpus"))["sentence"]


def test_an_empty_table_and_an_unknown_model_are_mistakes() -> None:
    with pytest.raises(UserError, match="no point of the model 'small'; it has none"):
        plan_for(as_table([]), fleet())
    with pytest.raises(UserError, match="it has large, small"):
        plan_for(table(), fleet(models={"medium": {"demand_tok_s": 1}}))


@pytest.mark.parametrize("objective", ["gpus", "throughput"])
def test_zero_demand_uses_nothing(objective: str) -> None:
    plan = plan_for(table(), fleet(objective=objective, models={"small": {"demand_tok_s": 0, "slo": {"ms": 1}}}))
    assert plan["status"] == "optimal"
    assert plan["gpus_used"] == 0
    assert plan["sentence"] == "Nothing is asked for, so no GPU is used."


def test_replicas_are_kept_ready_without_demand() -> None:
    plan = plan_for(table(), fleet(models={"small": {"demand_tok_s": 0, "min_replicas": 3}}, objective="gpus"))
    assert plan["gpus_used"] == 1
    assert plan["models"][0]["replicas"] == 3


def test_the_time_limit_is_told_with_the_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*arguments: Any) -> Solution:
        return replace(solve(*arguments), status=TIME_LIMIT, bound=1100.0)

    monkeypatch.setattr("memgap.planner.report.solve", stopped)
    plan = plan_for(table(), fleet())
    assert plan["status"] == "time limit"
    assert plan["objective"]["gap_fraction"] == pytest.approx(0.1)
    assert plan["sentence"].endswith("the time limit of 60 s left a gap of at most 10.0% to the best plan.")


def test_no_plan_in_time_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memgap.planner.report.solve", lambda *arguments: Solution(UNSOLVED))
    assert plan_for(table(), fleet())["sentence"] == "No plan was found in 60 s; raise time_limit_s."


# --- the fleet file


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"objective": "cost"}, "fleet: objective is 'cost', but must be one of gpus, throughput"),
        ({"gpus": []}, "fleet: gpus is [], but must be a list of at least one kind of GPU"),
        (
            {"gpus": [{"name": "a", "count": 0, "memory_gib": 1}]},
            "fleet: gpus[0]: count is 0, but must be a whole number",
        ),
        ({"gpus": [{"name": "a", "count": 1}]}, "fleet: gpus[0]: memory_gib is missing"),
        ({"gpus": [{"name": "a", "count": 1, "memory_gib": 1}] * 2}, "fleet: gpus names 'a' twice"),
        ({"gpus": [{"name": "a", "count": 1, "memory_gib": 1, "memory_limit_fraction": 2}]}, "above 0 and at most 1"),
        ({"models": {}}, "fleet: models is {}, but must be a mapping of at least one model"),
        (
            {"models": {"m": {"demand_tok_s": -1}}},
            "fleet: models.m: demand_tok_s is -1, but must be a number of at least 0",
        ),
        ({"models": {"m": {"demand_tok_s": 1, "slo": {"ms": 0}}}}, "fleet: models.m.slo: ms is 0"),
        ({"models": {"m": {"demand_tok_s": 1, "slo": {"latency": "itl", "ms": 1}}}}, "latency is 'itl'"),
        (
            {"models": {"m": {"demand_tok_s": 1, "min_replicas": 2, "max_replicas": 1}}},
            "at least min_replicas, which is 2",
        ),
        ({"models": {"m": {"demand": 1}}}, "unknown field 'demand' (did you mean"),
        ({"sharing_efficiency": 0}, "fleet: sharing_efficiency is 0"),
        ({"time_limit": 3}, "fleet: unknown field 'time_limit' (did you mean time_limit_s?"),
    ],
)
def test_a_mistake_in_the_fleet_is_one_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        fleet(**changes)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(("text", "sentence"), [("a: [1\nb: 2\n", "not valid YAML"), ("- 1\n", "must be a mapping")])
def test_a_bad_fleet_file_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "f.yaml").write_text(text)
    with pytest.raises(UserError, match=sentence):
        read_fleet(tmp_path / "f.yaml")


def test_a_missing_fleet_file_ends_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--table", "t.csv", "--fleet", str(tmp_path / "none.yaml"), "--out", str(tmp_path / "p.yaml")]) == 2
    assert capsys.readouterr().err.startswith("memgap: cannot read the fleet ")


def test_points_that_are_left_out_are_counted_by_why() -> None:
    more = rows_of("small", {256: (1600.0, 70.0, 70.0)}, status="oom")
    more += rows_of("small", {48: (1200.0, 25.0, 30.0)}, verdict="invalid", verdict_reasons="foreign_processes")
    more += rows_of("small", {64: (math.inf, 30.0, 30.0)}) + rows_of("small", {64: (1300.0, math.nan, 30.0)})
    plan = plan_for(as_table(rows_of("small", SMALL) + more), fleet(objective="gpus"))
    assert plan["models"][0]["points"] == {"good": 3, "no number": 2, "failed": 1, "invalid": 1}
    assert plan["models"][0]["ceiling_tok_s"] == {"a": 1500.0}


def test_numbers_of_a_fleet_may_have_exponents_and_texts_need_quotes(tmp_path: Path) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_text("gpus: [{name: '1e1', count: 1e1, memory_gib: 8e1}]\nmodels: {m: {demand_tok_s: 1.5e3}}\n")
    found = read_fleet(path)
    assert [(one.name, one.count, one.memory_gib) for one in found.gpus] == [("1e1", 10, 80.0)]
    assert found.models[0].demand_tok_s == 1500.0
    path.write_text("gpus: [{name: 7, count: 1, memory_gib: 80}]\nmodels: {m: {demand_tok_s: 1}}\n")
    with pytest.raises(UserError, match="name is 7, but must be a non-empty text, in quotes"):
        read_fleet(path)
