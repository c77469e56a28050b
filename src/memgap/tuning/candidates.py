"""The configurations of one race: the reference, the default, and what an experiment varies."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from memgap.canonical import canonical_json, content_key
from memgap.engine.given import GivenFlags, without_none
from memgap.errors import UserError
from memgap.kinds.online.point import make_point, session_name
from memgap.points.expand import NESTED, Arguments, expand_sweep
from memgap.points.point import Point, Record
from memgap.points.resolve import check_enough_prompts, dataset_record
from memgap.tuning.speculation import FLAGS as SPECULATION
from memgap.tuning.speculation import segment
from memgap.tuning.validate import check_record, check_varied

DEFAULT = "default"
RACE_REPEATS = 100
"""Blocks are repeats of a point: the first race of a tuning counts from 0, the second from 100, and so on."""
Subject = tuple[str, str]
"""Model and dataset: what a race is about. Requests are the same for all its configurations."""


@dataclass(frozen=True)
class Candidate:
    """One configuration: arguments without lists, and the record of its first repeat."""

    experiment: str
    arguments: Arguments
    record: Record
    also: list[str] = field(default_factory=list)

    @property
    def key(self) -> str:
        """The same for every repeat of the same configuration, and the name of the arm in its race."""
        return content_key({name: value for name, value in self.record.items() if name != "repeat"}, 8)

    @property
    def gpus(self) -> int:
        """GPUs that the server takes, 1 at least."""
        return GivenFlags.of(self.record).gpus

    def repeated(self, repeat: int) -> Record:
        """Return the record of another repeat."""
        record: Record = json.loads(canonical_json(self.record))
        record["repeat"] = repeat
        return record


def subjects(plan: Mapping[str, Any]) -> list[Subject]:
    """Return the models and datasets of a tuning plan, in the order written, each pair once."""
    found: dict[Subject, None] = {}
    for tier in plan["tiers"]:
        for _, arguments in expanded(tier, plan["fixed"]):
            found[arguments["model"], arguments["dataset"]] = None
    return list(found)


def expanded(tier: Mapping[str, Any], base: Mapping[str, Any]) -> Iterator[tuple[str, Arguments]]:
    """Yield (experiment, arguments) of a tier; its experiments override `base`. Raises UserError."""
    experiments = {one["name"]: one["arguments"] for one in tier["experiments"]}
    sweep = {"fixed": dict(base), "experiments": experiments, "zip": tier.get("zip", [])}
    yield from expand_sweep(f"{tier['tuning']}.tiers.{tier['name']}", sweep, "tuning")


class Builder:
    """Makes the candidates of one subject of a tuning plan."""

    def __init__(self, plan: Mapping[str, Any], subject: Subject) -> None:
        self._plan = plan
        self._model, self._dataset = subject

    def defaults(self) -> list[Candidate]:
        """Return the default configuration, or where its arguments have lists all that may be it, best first.

        It is `fixed` without flags that are swept there, and of other swept arguments the first value, with `default`
        laid over it. Raises UserError.
        """
        base: Arguments = {}
        for name, value in self._plan["fixed"].items():
            if name in NESTED:
                kept = {flag: one for flag, one in value.items() if not isinstance(one, list)}
                firsts = {flag: one[0] for flag, one in value.items() if isinstance(one, list)}
                base[name] = {**kept, **(firsts if name != "server" else {})}
            else:
                base[name] = value[0] if isinstance(value, list) else value
        tier = {
            "tuning": self._plan["tuning"],
            "name": DEFAULT,
            "experiments": [{"name": DEFAULT, "arguments": self._plan["default"]}],
        }
        base.update(model=self._model, dataset=self._dataset)
        return _distinct(self._made(DEFAULT, arguments) for _, arguments in expanded(tier, base))

    def of_arguments(self, experiment: str, arguments: Mapping[str, Any]) -> Candidate:
        """Return the candidate of arguments without lists. Raises UserError."""
        return self._made(experiment, {**arguments, "model": self._model, "dataset": self._dataset})

    def tier(
        self, number: int, base: Mapping[str, Any] | None, refused: list[tuple[str, str]] | None = None
    ) -> list[Candidate]:
        """Return what the experiments of a tier vary, each once.

        `base`: arguments of the winner so far, None in the first tier, which varies `fixed`. A combination that cannot
        be goes into `refused` as (experiment, why), or without such a list raises UserError.
        """
        tier = self._plan["tiers"][number]
        fixed = dict(self._plan["fixed"])
        if base is not None:
            fixed = {**base, **{name: fixed[name] for name in ("model", "dataset") if name in fixed}}
        found = []
        for experiment, arguments in expanded(tier, fixed):
            if (arguments.get("model"), arguments.get("dataset")) != (self._model, self._dataset):
                continue
            try:
                where = self._where(experiment, tier["name"])
                check_varied(self._flags(arguments, where), self._flags(fixed, where), where)
                found.append(self._made(experiment, arguments, tier["name"]))
            except UserError as error:
                if refused is None:
                    raise
                refused.append((experiment, str(error)))
        return _distinct(found)

    def _made(self, experiment: str, arguments: Arguments, tier: str = "") -> Candidate:
        where = self._where(experiment, tier)
        if "batch_cap" not in arguments:
            raise UserError(f"{where}: no `batch_cap` is given, the number of requests in flight.")
        model = self._plan["models"][self._model]
        engine = self._plan["engines"][arguments["engine"]]
        flags = self._flags(arguments, where)
        dataset = dataset_record(self._dataset, self._plan["datasets"][self._dataset], model, flags)
        point = make_point(arguments, engine, model, dataset, 0, where, queue=True)
        check_enough_prompts(point.record, where)
        check_record(point.record, self._plan["settings"]["gpus"], where)
        return Candidate(experiment, arguments, point.record)

    def _flags(self, arguments: Arguments, where: str) -> GivenFlags:
        """Return the flags of one configuration; a list, which only `fixed` may have, is no value."""
        adapter = self._plan["engines"][arguments["engine"]]["adapter"]
        return GivenFlags(adapter, without_none(arguments.get("server", {})), where)

    def _where(self, experiment: str, tier: str) -> str:
        where = f"config: tuning.{self._plan['tuning']}" + (f".tiers.{tier}" if tier else "")
        return f"{where}, {experiment} of {self._model}"


def point_of(candidate: Candidate, repeat: int) -> Point:
    """Return the point that measures a candidate for the so many-th time."""
    record = candidate.repeated(repeat)
    return Point.of(record, session_name(record))


def deviations(arguments: Mapping[str, Any], reference: Mapping[str, Any]) -> list[str]:
    """Return in words how arguments differ from those of the reference, such as "max-num-seqs 64"."""
    mine, theirs = _flat(arguments), _flat(reference)
    found = []
    for name in sorted(mine.keys() | theirs.keys()):
        if mine.get(name) != theirs.get(name):
            found.append(_said(name, mine.get(name)))
    return found


def _said(name: str, value: Any) -> str:
    short = name.removeprefix("server.")
    if short in SPECULATION:
        return f"speculation {segment(value)}"
    if value is None:
        return f"no {short}"
    if isinstance(value, bool):
        return short if value else f"no {short}"
    return f"{short} {canonical_json(value) if isinstance(value, (dict, list)) else value}"


def _flat(arguments: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in arguments.items():
        if name in NESTED:
            flat.update({f"{name}.{inner}": one for inner, one in value.items() if one is not None})
        else:
            flat[name] = value
    return flat


def _distinct(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Return each configuration once; one that several experiments have keeps the names of all."""
    found: dict[str, Candidate] = {}
    for one in candidates:
        first = found.setdefault(one.key, one)
        if first is not one and one.experiment not in (first.experiment, *first.also):
            first.also.append(one.experiment)
    return list(found.values())
