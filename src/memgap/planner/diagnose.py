"""What to relax where a fleet cannot do what is asked, one sentence a constraint."""

import math
from dataclasses import replace

from memgap.planner.fleet import Demand, Fleet, GpuKind
from memgap.planner.options import Menu, obstacle_of
from memgap.planner.program import OPTIMAL, TIME_LIMIT, Group, solve

MOST_EXTRA_GPUS = 64
"""More GPUs than these are not tried; the plan then says how many the bandwidth alone needs."""


def impossible_models(fleet: Fleet, menu: Menu) -> dict[str, str]:
    """Return for each model that cannot be placed at all the sentence that says why and what would do."""
    found = {one.model: obstacle_of(menu, one.model) for one in fleet.models}
    return {model: obstacle.sentence for model, obstacle in found.items() if obstacle}


def sentences(fleet: Fleet, menu: Menu) -> list[str]:
    """Return what of an infeasible fleet has to be relaxed: models, then replicas, then the demand and the GPUs."""
    impossible = impossible_models(fleet, menu)
    said = [impossible[one.model] for one in fleet.models if one.model in impossible and _wanted(one, fleet)]
    return said or _too_few_replicas_allowed(fleet, menu) or _replicas_do_not_fit(fleet, menu) or _too_few(fleet, menu)


def served(tok_s: float) -> str:
    """Return a throughput as text."""
    return f"{tok_s:,.0f} tok/s"


def _wanted(demand: Demand, fleet: Fleet) -> bool:
    return demand.min_replicas > 0 or (fleet.objective == "gpus" and demand.demand_tok_s > 0)


def _best_tok_s(menu: Menu, model: str) -> float:
    return max(choices[model].best_tok_s for choices in menu.values())


def _too_few_replicas_allowed(fleet: Fleet, menu: Menu) -> list[str]:
    said = []
    for one in fleet.models:
        if fleet.objective != "gpus" or one.max_replicas is None or not one.demand_tok_s:
            continue
        best = _best_tok_s(menu, one.model)
        if one.max_replicas * best < one.demand_tok_s * (1 - 1e-9):
            said.append(
                f"max_replicas {one.max_replicas} of {one.model} yields at most {served(one.max_replicas * best)} "
                f"of the {served(one.demand_tok_s)} asked for; at least {math.ceil(one.demand_tok_s / best - 1e-9)} "
                "would do."
            )
    return said


def _groups(fleet: Fleet) -> list[Group]:
    return [Group(kind, kind.count) for kind in fleet.gpus]


def _replicas_do_not_fit(fleet: Fleet, menu: Menu) -> list[str]:
    free = [replace(one, demand_tok_s=0.0) for one in fleet.models]
    found = solve("replicas", _groups(fleet), menu, free, fleet.time_limit_s)
    if found.status != OPTIMAL or not found.value:
        return []
    return [
        f"min_replicas {one.min_replicas} of {one.model} cannot be placed with those of the others: "
        f"{found.replicas(one.model)} fit; ask for {found.replicas(one.model)} or add GPUs."
        for one in fleet.models
        if found.replicas(one.model) < one.min_replicas
    ]


def _too_few(fleet: Fleet, menu: Menu) -> list[str]:
    equal = [replace(one, weight=1.0) for one in fleet.models]
    found = solve("throughput", _groups(fleet), menu, equal, fleet.time_limit_s)
    if found.value is None:
        return [f"No plan was found in {fleet.time_limit_s:g} s; raise time_limit_s."]
    asked = sum(one.demand_tok_s for one in fleet.models)
    parts = ", ".join(
        f"{one.model} {served(found.served_tok_s(one.model))} of {served(one.demand_tok_s)}" for one in fleet.models
    )
    proven = "The most" if found.status == OPTIMAL else "What was found in time"
    said = [
        f"The demand of {served(asked)} cannot be served with the given GPUs. {proven} that can be served is "
        f"{served(found.value)}, such as {parts}."
    ]
    return said + [sentence for kind in fleet.gpus if (sentence := _more_gpus(fleet, menu, kind))]


def _more_gpus(fleet: Fleet, menu: Menu, kind: GpuKind) -> str:
    """Return how many more GPUs of a kind would serve everything, or "" where no number would."""
    enough, least = 0, 0.0
    for one in fleet.models:
        choices = menu[kind.name][one.model]
        if one.demand_tok_s and not choices.options:
            return ""
        if choices.options:
            best = min(choices.best_tok_s, choices.ceiling_tok_s)
            enough += max(math.ceil(one.demand_tok_s / best), one.min_replicas)
            least += one.demand_tok_s / choices.ceiling_tok_s
    tried = min(enough, MOST_EXTRA_GPUS)
    extra = Group(kind, tried)
    given = [replace(group, counted=False) for group in _groups(fleet)]
    found = solve("gpus", [*given, extra], menu, fleet.models, fleet.time_limit_s)
    if found.value is None:
        if enough <= tried:
            return ""
        return (
            f"More than {tried} more GPUs of the kind {kind.name} would be needed; {math.ceil(least)} in all at least."
        )
    number = round(found.value)
    plural = "s" * (number != 1)
    unproven = " (fewer may do: the time limit came first)" if found.status == TIME_LIMIT else ""
    return f"{number} more GPU{plural} of the kind {kind.name} would do{unproven}."
