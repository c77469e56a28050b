"""The plan of a fleet as a document and as a table of placements."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import pandas as pd
import yaml

from memgap.advisor.report import model_rows, use_of
from memgap.planner.diagnose import impossible_models, sentences, served
from memgap.planner.fleet import Demand, Fleet
from memgap.planner.options import Menu, menu_of
from memgap.planner.program import INFEASIBLE, OPTIMAL, UNSOLVED, Group, Placed, Solution, solve

HEAD = "# Plan of a fleet. How to read it: docs/planner.md\n"
COLUMNS = (
    "gpu",
    "kind",
    "model",
    "batch_cap",
    "replicas",
    "memory_fraction",
    "served_tok_s",
    "capacity_tok_s",
    "latency_ms",
    "latency",
    "flags",
)
ASSUMPTIONS = (
    "Replicas on one GPU share it in time: the shares served / ceiling of all its models add up to 1 at most.",
    "Throughput and latency are those of one replica measured alone, times sharing_efficiency beside others; measured "
    "slowdown by neighbours is not part of the program.",
)


def plan_for(table: pd.DataFrame, fleet: Fleet) -> dict[str, Any]:
    """Return the plan of a fleet from the tables of its models' sweeps.

    Raises UserError where the table does not know a model or the fleet does not say which GPUs its points are of. What
    cannot be done is no error: `status` is "infeasible" and `relax` says what to change.
    """
    menu = menu_of(table, fleet)
    solution, relax = _solved(fleet, menu)
    impossible = impossible_models(fleet, menu)
    plan: dict[str, Any] = {
        "status": solution.status,
        "sentence": _sentence(solution, fleet, relax, impossible),
        "objective": {
            "name": fleet.objective,
            "value": _rounded(solution.value),
            "bound": _rounded(solution.bound),
            "gap_fraction": _rounded(_gap(solution)),
        },
        "gpus_used": len(solution.gpus),
        "gpus_given": sum(kind.count for kind in fleet.gpus),
    }
    if relax:
        plan["relax"] = relax
    plan["models"] = [
        {
            "model": one.model,
            "demand_tok_s": _rounded(one.demand_tok_s),
            "served_tok_s": _rounded(solution.served_tok_s(one.model)),
            "served_fraction": _rounded(min(1.0, solution.served_tok_s(one.model) / one.demand_tok_s))
            if one.demand_tok_s
            else None,
            "replicas": solution.replicas(one.model),
            "slo_ms": one.slo_ms,
            "latency": one.latency,
            "points": points_used(table, one),
            "ceiling_tok_s": {kind: _rounded(choices[one.model].ceiling_tok_s) for kind, choices in menu.items()},
        }
        for one in fleet.models
    ]
    plan["gpus"] = _gpus(solution, fleet, menu)
    plan["placement"] = [_row(one, fleet) for one in solution.placed]
    plan["notes"] = [impossible[one.model] for one in fleet.models if one.model in impossible and not relax]
    plan["assumptions"] = list(ASSUMPTIONS)
    return plan


def points_used(table: pd.DataFrame, demand: Demand) -> dict[str, int]:
    """Return how many of a model's points count and how many are left out, by why: {"good": 8, "invalid": 1}.

    "no number" is a good point without a finite throughput and latency.
    """
    return {
        str(use): int(count)
        for use, count in use_of(model_rows(table, demand.model), demand.latency).value_counts().items()
    }


def write_plan(plan: Mapping[str, Any]) -> str:
    """Return the plan as YAML text with a heading."""
    return HEAD + yaml.safe_dump(dict(plan), sort_keys=False, allow_unicode=False, width=110)


def placement_table(plan: Mapping[str, Any]) -> pd.DataFrame:
    """Return one row a GPU, model and cap of a plan; the flags as one text."""
    rows = [{**one, "flags": " ".join(one["flags"])} for one in plan["placement"]]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _solved(fleet: Fleet, menu: Menu) -> tuple[Solution, list[str]]:
    impossible = impossible_models(fleet, menu)
    for one in fleet.models:
        if one.model in impossible and (one.min_replicas or (fleet.objective == "gpus" and one.demand_tok_s)):
            return Solution(INFEASIBLE), sentences(fleet, menu)
    groups = [Group(kind, kind.count) for kind in fleet.gpus]
    solution = solve(fleet.objective, groups, menu, fleet.models, fleet.time_limit_s)
    if solution.status == INFEASIBLE:
        return solution, sentences(fleet, menu)
    if solution.status == UNSOLVED:
        return solution, [f"No plan was found in {fleet.time_limit_s:g} s; raise time_limit_s."]
    return solution, []


def _sentence(solution: Solution, fleet: Fleet, relax: list[str], impossible: Mapping[str, str]) -> str:
    if relax:
        return relax[0]
    used, given = len(solution.gpus), sum(kind.count for kind in fleet.gpus)
    asked = sum(one.demand_tok_s for one in fleet.models)
    total = sum(solution.served_tok_s(one.model) for one in fleet.models)
    if not asked and not solution.placed:
        return "Nothing is asked for, so no GPU is used."
    counted = f"{used} of {given} GPU{'s' * (given != 1)}"
    if total >= asked * (1 - 1e-6):
        start = f"{counted} serve all of the {served(asked)} asked for"
    else:
        start = f"{counted} serve {served(total)}, {total / asked:.1%} of the {served(asked)} asked for"
    if not solution.placed and impossible:
        return f"{start}. {next(iter(impossible.values()))}"
    if solution.status == OPTIMAL:
        best = "fewer GPUs cannot" if fleet.objective == "gpus" else "no other placement serves more by weight"
        return f"{start}; {best}."
    gap = _gap(solution)
    known = "an unknown gap" if gap is None else f"a gap of at most {gap:.1%}"
    return f"{start}; the time limit of {fleet.time_limit_s:g} s left {known} to the best plan."


def _gap(solution: Solution) -> float | None:
    if solution.value is None or solution.bound is None:
        return None
    return abs(solution.value - solution.bound) / max(abs(solution.value), 1e-9) if solution.value else 0.0


def _row(one: Placed, fleet: Fleet) -> dict[str, Any]:
    kind = fleet.gpus[one.group]
    latency = next(demand.latency for demand in fleet.models if demand.model == one.option.model)
    return {
        "gpu": f"{kind.name}-{one.gpu + 1}",
        "kind": kind.name,
        "model": one.option.model,
        "batch_cap": one.option.batch_cap,
        "replicas": one.replicas,
        "memory_fraction": one.option.need_permille / 1000,
        "served_tok_s": _rounded(one.served_tok_s),
        "capacity_tok_s": _rounded(one.option.throughput_tok_s * one.replicas),
        "latency_ms": _rounded(one.option.latency_ms),
        "latency": latency,
        "flags": list(one.option.flags),
    }


def _gpus(solution: Solution, fleet: Fleet, menu: Menu) -> list[dict[str, Any]]:
    held: dict[tuple[int, int], list[Placed]] = defaultdict(list)
    for one in solution.placed:
        held[one.group, one.gpu].append(one)
    return [
        {
            "gpu": f"{fleet.gpus[group].name}-{gpu + 1}",
            "replicas": sum(one.replicas for one in placed),
            "memory_fraction": sum(one.option.need_permille * one.replicas for one in placed) / 1000,
            "share_of_ceiling_fraction": _rounded(
                sum(one.served_tok_s / menu[fleet.gpus[group].name][one.option.model].ceiling_tok_s for one in placed)
            ),
        }
        for (group, gpu), placed in sorted(held.items())
    ]


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")
