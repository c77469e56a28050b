"""The points of a configuration with their state, and an estimate of what a run would cost."""

import csv
import json
import statistics
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from memgap.advisor.verify import verification_plan
from memgap.config.files import read_config_files
from memgap.config.load import known
from memgap.errors import UserError
from memgap.kinds.registry import kind_of
from memgap.points.point import Point
from memgap.session.progress import clock
from memgap.store.results import Results
from memgap.study.estimate import ASSUMED_START_S, guessed_s, tpot_by_model
from memgap.study.study import Study
from memgap.tables.documents import read_advice
from memgap.workflow import load_study


@dataclass(frozen=True)
class Row:
    """One point in the listing; `estimate_s` is measured time where the point is in the store.

    `load_s` is the duration of a load in seconds, of which `requests` are the most.
    """

    sweep: str
    experiment: str
    key: str
    session: str
    model: str
    batch_cap: int
    cap_side: str
    requests: int
    load_s: float | None
    repeat: int
    state: str
    estimate_s: float


def list_points(study: Study, results: Path, sweep: str | None = None) -> list[Row]:
    """Return a row for each point of all sweeps, studies, load tests and tunings, or of one of them.

    Of a race that was not run yet these are the points of its first blocks, which it needs but for what fails or is
    screened; one that builds on a race that was not run has none yet. The verification of an advice is a point of its
    sweep once there is the advice. Raises UserError for an unknown name.
    """
    if sweep is not None:
        known(sweep, study.groups, "sweep", "list")
    store = Results(results).store
    raced = {name: list(kind.known_points(plan, results)) for name, (kind, plan) in study.plans.items()}
    verified = list(_verifications(study, results))
    further = [point for _, point in (*verified, *(one for found in raced.values() for one in found))]
    points = {**study.points, **{point.key: point for point in further}}
    states = {key: store.status(key) for key in points}
    measured = {key: store.read(key) or {} for key, state in states.items() if state not in ("missing", "garbled")}
    tpot_ms = tpot_by_model(measured.values())
    races = {name: [(experiment, point.key) for experiment, point in found] for name, found in raced.items()}
    groups = {name: list(group.members) for name, group in study.groups.items()} | races
    for name, point in verified:
        groups[name].append(("verification", point.key))
    return [
        _row(name, experiment, points[key], states[key], measured.get(key, {}), tpot_ms)
        for name, members in groups.items()
        if sweep in (None, name)
        for experiment, key in members
    ]


def _verifications(study: Study, results: Path) -> Iterator[tuple[str, Point]]:
    """Yield (sweep, point) of each advised server that the configuration lets measure, once there is its advice.

    Recorded data that lack such a point will not get it, so it is none to come.
    """
    models = [(sweep, model) for sweep in study.figure_sweeps() for model in study.models_of(sweep)]
    for sweep, model in models if study.config["advisor"]["verify"] else []:
        try:
            advice = read_advice([results / "advisor" / f"{model}.yaml"])[model]
            plan = verification_plan(study.verification_plan(model), advice)
        except (OSError, KeyError, UserError):  # none yet, or one of another configuration
            continue
        if plan is not None and study.advised_sweep(model) == sweep:
            point = Point(**plan["points"][0], session=plan["session"])
            if study.config["recorded"] is None or Results(results).store.status(point.key) != "missing":
                yield sweep, point


def cost(rows: Sequence[Row], results: Path, again: Collection[str] = ()) -> tuple[int, int, float]:
    """Return what a run would do: points to measure, servers to start, seconds including the starts.

    `again` are keys of stored points that the configuration asks to measure once more.
    """
    missing = {row.key: row for row in rows if row.state in ("missing", "garbled") or row.key in again}
    sessions = {row.session for row in missing.values()}
    return (
        len(missing),
        len(sessions),
        sum(row.estimate_s for row in missing.values()) + len(sessions) * _start_s(results),
    )


def asked_again(study: Study, results: Path, rows: Sequence[Row]) -> set[str]:
    """Return the keys that `remeasure` and `remeasure_failed` ask for and that were not measured for them yet."""
    store = Results(results).store
    again = set()
    for row in rows:
        if row.state in ("missing", "garbled"):
            continue
        named = row.key in study.config["remeasure"]
        done = named and row.key in (store.read(row.key) or {}).get("remeasured_for", [])
        if (named and not done) or (row.state != "ok" and study.config["remeasure_failed"]):
            again.add(row.key)
    return again


def _row(
    sweep: str,
    experiment: str,
    measured_as: Point,
    state: str,
    point: Mapping[str, Any],
    tpot_ms: Mapping[str, float],
) -> Row:
    record = measured_as.record
    model = record["model"]["name"]
    kind = kind_of(record)
    listed, measured_s = kind.listed(record), kind.measured_s(point)
    return Row(
        sweep=sweep,
        experiment=experiment,
        key=measured_as.key,
        session=measured_as.session,
        model=model,
        batch_cap=listed.batch_cap,
        cap_side=listed.side,
        requests=listed.requests,
        load_s=listed.load_s,
        repeat=record["repeat"],
        state=state,
        estimate_s=round(measured_s if measured_s is not None else guessed_s(record, tpot_ms), 1),
    )


def _start_s(results: Path) -> float:
    store = Results(results).store
    starts = []
    for key in store.stored_keys():
        if store.status(key) == "ok" and (point := store.read(key)):
            starts.append(point["engine"]["start_s"])
    return statistics.fmean(starts) if starts else ASSUMED_START_S


def print_listing(configfiles: Sequence[Path], results: Path, sweep: str | None, form: str) -> None:
    """Print the listing as text, csv or json; raises UserError for a broken configuration or unknown sweep."""
    study = load_study(read_config_files(configfiles))
    rows = list_points(study, results, sweep)
    if form == "json":
        json.dump([asdict(row) for row in rows], sys.stdout, indent=1)
        print()
        return
    if form == "csv":
        writer = csv.DictWriter(sys.stdout, list(Row.__dataclass_fields__), lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
        return
    _print_text(rows)
    points, servers, seconds = cost(rows, results, asked_again(study, results, rows))
    states = Counter(row.state for row in rows)
    print(f"\n{len(rows)} points: " + ", ".join(f"{count} {state}" for state, count in sorted(states.items())))
    if points:
        plural = "s" * (servers != 1)
        duration = f"about {clock(seconds)} (estimated)"
        counted = f"{points} point{'s' * (points != 1)}"
        print(f"a run would start {servers} server{plural} and measure {counted} in {duration}")
    else:
        print("a run would measure nothing")


def _print_text(rows: Sequence[Row]) -> None:
    head = ("sweep", "experiment", "model", "cap", "side", "load", "repeat", "state", "seconds", "key", "session")
    body = [
        (
            row.sweep,
            row.experiment,
            row.model,
            str(row.batch_cap),
            row.cap_side,
            str(row.requests) if row.load_s is None else f"{row.load_s:g} s",
            str(row.repeat),
            row.state,
            f"{'' if row.state == 'ok' else '~'}{row.estimate_s:.0f}",
            row.key,
            row.session,
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in (head, *body)) for column in range(len(head))]
    for line in (head, *body):
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
