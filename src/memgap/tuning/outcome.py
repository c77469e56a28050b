"""The outcome of a race as a file: what ran, where each configuration stands, and what won."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memgap.canonical import canonical_json
from memgap.errors import UserError
from memgap.store.atomic import write_text
from memgap.tuning.candidates import Candidate
from memgap.tuning.race import Standing, Verdict

SCHEMA = 1
Outcome = dict[str, Any]


def arm_entry(arm: Candidate, verdict: Verdict, label: str, default: str, points: Sequence[str]) -> dict[str, Any]:
    """Return what an outcome says of one configuration; `default` is the name of the default, `points` its keys."""
    standing = verdict.standings.get(arm.key, Standing(arm.key))
    return {
        "name": arm.key,
        "experiment": arm.experiment,
        "also": arm.also,
        "label": label,
        "arguments": arm.arguments,
        "server_args": arm.record["server"]["args"],
        "gpus": arm.gpus,
        "points": list(points),
        "state": "winner" if arm.key == verdict.winner else standing.state,
        "is_reference": arm.key == verdict.reference,
        "is_default": arm.key == default,
        "left_after": standing.left_after,
        "reason": standing.reason,
        "gain_fraction": standing.gain_fraction,
        "gain_low_fraction": standing.gain_low_fraction,
        "gain_high_fraction": standing.gain_high_fraction,
        "sign_flip_p": standing.sign_flip_p,
        "claimed": standing.claimed,
    }


def write_outcome(path: Path, outcome: Mapping[str, Any]) -> None:
    """Write an outcome, whole or not at all."""
    write_text(path, canonical_json(outcome) + "\n")


def read_outcome(path: Path) -> Outcome:
    """Return the outcome of a race; raises UserError where it is none."""
    try:
        found: Outcome = json.loads(path.read_text(encoding="utf-8"))
        if found["schema"] != SCHEMA:
            raise ValueError(f"its schema is {found['schema']}, not {SCHEMA}")
        found["arms"], found["winner"], found["default"]["arguments"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: no outcome of a race ({error}); run that tier again.") from error
    return found
