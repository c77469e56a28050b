"""Divides a server's points among sessions of a wanted length, so that each fits its time limit.

A point that has a session keeps it: the file results/plans/sessions.json holds which session a point has, and only
points that are new to it get a place. So another cap never moves a point that is measured or waiting somewhere. Points
that the store has already cost nothing when places are given.
"""

import fcntl
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from memgap.errors import UserError
from memgap.store.atomic import write_text
from memgap.store.results import Results
from memgap.study.estimate import ASSUMED_START_S, guessed_s, tpot_by_model
from memgap.study.study import Study

FILE = Path("plans") / "sessions.json"
Places = dict[str, str]
"""Point key -> session name."""


@dataclass(frozen=True)
class Candidate:
    """A point that needs a session: `session` is the one that measures its server, `estimate_s` what it may take."""

    key: str
    session: str
    estimate_s: float


def assign(points: Iterable[Candidate], limit_s: float, before: Mapping[str, str]) -> Places:
    """Return a session for each point: that of `before`, else the first of its server's sessions with room for it.

    A server's first session has its name, the further ones the name with -part2, -part3, ... A point that is longer
    than `limit_s` with the server's start is alone in its session.
    """
    places: Places = {}
    used_s: dict[str, float] = defaultdict(lambda: ASSUMED_START_S)
    new: list[Candidate] = []
    for point in points:
        if point.key in before:
            places[point.key] = before[point.key]
            used_s[before[point.key]] += point.estimate_s
        else:
            new.append(point)
    for point in new:
        part, name = 1, point.session
        while used_s[name] > ASSUMED_START_S and used_s[name] + point.estimate_s > limit_s:
            part, name = part + 1, f"{point.session}-part{part + 1}"
        places[point.key] = name
        used_s[name] += point.estimate_s
    return places


def fit_sessions(study: Study, results: Path) -> Study:
    """Return the study with its points in sessions of about `resources.session_s`; the same study where that is null.

    New places are written to results/plans/sessions.json first. Points that stop rules may spare stay together, since
    the rules look at the session's other points. Raises UserError for a file that is none of ours.
    """
    limit_s = study.config["resources"]["session_s"]
    if limit_s is None:
        return study
    together = {session for session in study.sessions if study.session_plan(session)["stop"]}
    movable = {key: point.session for key, point in study.points.items() if point.session not in together}
    path = results / FILE
    places = _known_places(path, movable)
    if movable.keys() != places.keys():
        path.parent.mkdir(parents=True, exist_ok=True)
        with (path.parent / ".sessions.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            places = assign(_candidates(study, movable, results), limit_s, _known_places(path, movable))
            write_text(path, json.dumps({**_read(path), **places}, indent=0, sort_keys=True) + "\n")
    points = {key: replace(point, session=places.get(key, point.session)) for key, point in study.points.items()}
    sessions: dict[str, list[str]] = {}
    for key, point in points.items():
        sessions.setdefault(point.session, []).append(key)
    return replace(study, points=points, sessions=sessions)


def _candidates(study: Study, movable: Mapping[str, str], results: Path) -> list[Candidate]:
    store = Results(results).store
    stored = {key: store.read(key) or {} for key in movable if store.status(key) not in ("missing", "garbled")}
    tpot_ms = tpot_by_model(stored.values())
    return [
        Candidate(key, session, 0.0 if key in stored else guessed_s(study.points[key].record, tpot_ms))
        for key, session in movable.items()
    ]


def _known_places(path: Path, movable: Mapping[str, str]) -> Places:
    """Return the places of the points that have one; a name that is not of the point's server is none."""
    return {
        key: name
        for key, name in _read(path).items()
        if key in movable and re.fullmatch(re.escape(movable[key]) + r"(-part[1-9][0-9]*)?", name)
    }


def _read(path: Path) -> Places:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot read {path}, which holds the session of each point ({error}); remove it and places are given anew."
        ) from error
    if not isinstance(content, dict) or not all(isinstance(one, str) for one in content.values()):
        raise UserError(f"{path} does not hold the session of each point; remove it and places are given anew.")
    return content
