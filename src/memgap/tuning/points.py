"""The points of a tuning as far as they are known: of races that were run, and the first blocks of the next ones."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from memgap.errors import UserError
from memgap.points.point import Point
from memgap.tuning.candidates import RACE_REPEATS, Builder, Candidate, Subject, point_of
from memgap.tuning.outcome import read_outcome
from memgap.tuning.plan import Plan, outcome_path, races, tier_before, tier_number


def known_points(plan: Plan, results: Path) -> Iterator[tuple[str, Point]]:
    """Yield (tier/experiment, point): those that a race used, or of a race to come those of its least blocks.

    A race that builds on one that was not run has none yet.
    """
    for subject, tier in races(plan):
        number = tier_number(plan, tier)
        outcome = _outcome(plan, subject, tier, results)
        builder = Builder(plan, subject)
        if outcome is not None:
            for arm in outcome["arms"]:
                candidate = builder.of_arguments(arm["experiment"], arm["arguments"])
                for block in range(len(arm["points"])):
                    yield f"{tier}/{arm['experiment']}", point_of(candidate, number * RACE_REPEATS + block)
            continue
        arms = _next_arms(plan, subject, tier, results, builder)
        for candidate in arms:
            for block in range(plan["settings"]["least_blocks"]):
                yield f"{tier}/{candidate.experiment}", point_of(candidate, number * RACE_REPEATS + block)


def _next_arms(plan: Plan, subject: Subject, tier: str, results: Path, builder: Builder) -> list[Candidate]:
    """Return the arms of a race that was not run yet; none where what it builds on is not known."""
    before = tier_before(plan, tier)
    if before is None:
        arms = [builder.defaults()[0], *builder.tier(0, None)]
    else:
        outcome = _outcome(plan, subject, before, results)
        if outcome is None or outcome["winner"] is None:
            return []
        so_far = builder.of_arguments("the winner so far", outcome["winner"]["arguments"])
        kept = [builder.of_arguments("default", outcome["default"]["arguments"])]
        arms = [so_far, *(kept if plan["settings"]["against_default"] else [])]
        arms += builder.tier(tier_number(plan, tier), so_far.arguments, [])
    return list({one.key: one for one in reversed(arms)}.values())[::-1]


def _outcome(plan: Plan, subject: Subject, tier: str, results: Path) -> Mapping[str, Any] | None:
    path = outcome_path(results, plan, subject, tier)
    try:
        return read_outcome(path) if path.exists() else None
    except UserError:
        return None
