"""The plan of a tuning: everything that its races need of the configuration."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from memgap.config.load import known
from memgap.engine.adapters import adapter_for
from memgap.engine.given import GivenFlags, without_none
from memgap.errors import UserError
from memgap.points.point import Record
from memgap.points.resolve import Resolver
from memgap.store.results import Results
from memgap.tuning.candidates import Builder, Subject, expanded, subjects
from memgap.tuning.race import RaceRule

SETTINGS = (
    "objective",
    "servers",
    "least_gain_fraction",
    "screen_fraction",
    "seed",
    "against_default",
    "continue_on_failure",
    "budget_min",
)
ANALYSIS = ("usd_per_gpu_hour",)
"""What no race depends on."""
Plan = Mapping[str, Any]


def tuning_plans(resolver: Resolver) -> dict[str, Record]:
    """Return the plan of each tuning of a checked configuration.

    Every configuration of the first tier is checked, and those of later tiers on top of the default.
    Raises UserError for the first that cannot be.
    """
    found = {}
    for name, tuning in resolver.config["tuning"].items():
        plan = _plan(name, tuning, resolver)
        for subject in plan["subjects"]:
            builder = Builder(plan, (subject[0], subject[1]))
            default = builder.defaults()[0]
            for number in range(len(plan["tiers"])):
                builder.tier(number, default.arguments if number else None)
        found[name] = plan
    return found


def _plan(name: str, tuning: Mapping[str, Any], resolver: Resolver) -> Record:
    where, config = f"config: tuning.{name}", resolver.config
    fixed = dict(tuning["fixed"])
    fixed["engine"] = resolver.engine(fixed, where)["name"]
    tiers = [
        {
            "name": tier,
            "tuning": name,
            "experiments": [{"name": one, "arguments": given} for one, given in settings["experiments"].items()],
            "zip": settings["zip"],
        }
        for tier, settings in tuning["tiers"].items()
    ]
    plan: Record = {"tuning": name, "fixed": fixed, "default": dict(tuning["default"]), "tiers": tiers}
    used: dict[str, dict[str, None]] = {"model": {}, "dataset": {}}
    for tier in tiers:
        for experiment, arguments in expanded(tier, fixed):
            for part, names in used.items():
                if part not in arguments:
                    raise UserError(f"{where}: no `{part}` is given, neither in `fixed` nor in {experiment!r}.")
                names[arguments[part]] = None
            if arguments["engine"] != fixed["engine"]:
                raise UserError(f"{where}: {experiment!r} names another engine; a tuning is of one engine.")
    for dataset in used["dataset"]:
        known(dataset, config["datasets"], "dataset", where)
    least, most = tuning["blocks"]["least"], tuning["blocks"]["most"]
    if most < least:
        raise UserError(f"{where}.blocks: most {most} is below least {least}.")
    engine = config["engines"][fixed["engine"]]
    plan["settings"] = {
        **{one: tuning[one] for one in SETTINGS},
        "gpus": tuning["gpus"] if tuning["gpus"] is not None else config["resources"]["gpus"],
        "averaging": config["averaging"],
        "false_winner_rate": tuning["false_winner_rate"],
        "least_blocks": least,
        "most_blocks": most,
        "races": len(tiers),
        "skip_failure_reasons": []
        if tuning["skip_failure_reasons"] == "none"
        else sorted(tuning["skip_failure_reasons"]),
    }
    plan["engines"] = {fixed["engine"]: resolver.engines[fixed["engine"]]}
    plan["models"] = {model: resolver.model(model) for model in used["model"]}
    plan["datasets"] = {dataset: dict(config["datasets"][dataset]) for dataset in used["dataset"]}
    plan["options"] = {
        "python": engine["python"],
        "port": engine["port"],
        "startup_timeout_s": engine["startup_timeout_s"],
        "interval_s": config["collectors"]["interval_s"],
        "recorded": config["recorded"],
    }
    plan["analysis"] = {one: tuning[one] for one in ANALYSIS}
    plan["subjects"] = [list(subject) for subject in subjects(plan)]
    if plan["settings"]["servers"] == "together":
        _check_together(plan, plan["settings"]["gpus"], where)
    return plan


def _check_together(plan: Plan, gpus: int, where: str) -> None:
    """Raise UserError where servers that idle beside one another would each take the GPU's free memory."""
    engine = next(iter(plan["engines"].values()))
    for tier in plan["tiers"]:
        for experiment, arguments in expanded(tier, plan["fixed"]):
            check_kept_up(engine, without_none(arguments.get("server", {})), gpus, experiment, where)


def check_kept_up(engine: Record, given: Record, gpus: int, name: str, where: str) -> None:
    """Raise UserError where a server with the flags `given` cannot idle beside others; `name` is what it is called."""
    adapter, flags = adapter_for(engine["adapter"]), GivenFlags(engine["adapter"], given)
    if adapter.measures_free_memory({"server": {"args": given}}):
        raise UserError(
            f"{where}: with `servers: together` each server needs a KV cache of set size; give {name!r} "
            f"{flags.name('kv_bytes') or flags.name('kv_tokens')}, or use `servers: in_turn`."
        )
    if gpus and adapter.capabilities.needs_free_share and "memory_fraction" not in flags:
        share = flags.name("memory_fraction")
        raise UserError(
            f"{where}: {engine['package']} starts only where its {share} is free, 0.9 unless told; with "
            f"`servers: together` give {name!r} the share of one server, such as 0.2."
        )


def race_rule(plan: Plan) -> RaceRule:
    """Return the rule of each race; the rate of false winners of the tuning is divided among its races."""
    settings = plan["settings"]
    return RaceRule(
        false_winner_rate=settings["false_winner_rate"] / settings["races"],
        least_blocks=settings["least_blocks"],
        most_blocks=settings["most_blocks"],
        least_gain_fraction=settings["least_gain_fraction"],
        screen_fraction=settings["screen_fraction"],
    )


def race_plan(plan: Plan, tier: str) -> Record:
    """Return the part of a plan that the race of a tier depends on, beside the race before it."""
    kept = {name: value for name, value in plan.items() if name not in ("analysis", "tiers", "subjects")}
    return {**kept, "tier": tier_of(plan, tier), "rule": asdict(race_rule(plan))}


def tier_of(plan: Plan, name: str) -> Record:
    """Return a tier by its name; raises UserError for an unknown one."""
    tiers = {one["name"]: one for one in plan["tiers"]}
    known(name, tiers, "tier", f"tuning.{plan['tuning']}")
    found: Record = tiers[name]
    return found


def tier_number(plan: Plan, name: str) -> int:
    """Return the place of a tier, from 0; raises UserError for an unknown one."""
    tiers: list[Record] = plan["tiers"]
    return tiers.index(tier_of(plan, name))


def tier_before(plan: Plan, name: str) -> str | None:
    """Return the name of the tier whose winner a tier builds on, None for the first."""
    place = tier_number(plan, name)
    return str(plan["tiers"][place - 1]["name"]) if place else None


def outcome_path(results: Path, plan: Plan, subject: Subject, tier: str) -> Path:
    """Return where the outcome of a race is written."""
    return Results(results).tuning / str(plan["tuning"]) / subject[0] / subject[1] / f"{tier}.json"


def races(plan: Plan) -> Iterator[tuple[Subject, str]]:
    """Yield (subject, tier) of every race, a subject's tiers in their order."""
    for model, dataset in plan["subjects"]:
        for tier in plan["tiers"]:
            yield (model, dataset), tier["name"]
