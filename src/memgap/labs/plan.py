"""The plan of a lab: its cells with their records, and all else that a run, its table and its claims need."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from memgap.config.load import checked_part, known
from memgap.config.numbers import ENDLESS
from memgap.datasets.derived import with_field
from memgap.engine.adapters import ADAPTERS, require
from memgap.engine.identity import NOT_INSTALLED
from memgap.errors import UserError
from memgap.kinds.offline.point import REQUIRED as OFFLINE_REQUIRED
from memgap.kinds.offline.point import make_offline_point
from memgap.kinds.online.kind import REQUIRED
from memgap.kinds.online.point import make_point
from memgap.kinds.phased import names_of, phases_record
from memgap.kinds.static.point import is_static
from memgap.labs.claims import claims_of
from memgap.labs.metric import SERIES, check_metric, check_pattern
from memgap.labs.names import SAME, metric_of
from memgap.points.expand import NESTED, Arguments, combinations, merge_arguments
from memgap.points.point import Record
from memgap.points.resolve import Resolved, Resolver, check_enough_prompts, dataset_record
from memgap.tuning.plan import check_kept_up

AA_CLAIM = "aa"
AA_WITHIN = 0.05
OWN = ("label", "only", "kind")
"""What an arm has beside arguments."""
OF_ALL_KINDS = ("engine", "model", "server", "env")
RATE, OF_CAPACITY = "load.rate_req_s", "load.rate_of_capacity"
ALL_AT_ONCE = "all-at-once"
SKIPPED = ("oom", "bad_config", "server_failure", "timeout", "request_errors", "invalid")
"""Failures are results: they are not tried again unless `remeasure_failed` says so."""
ANALYSIS = ("question", "arms", "figure", "claims")
"""What no run depends on."""
At = Mapping[str, Any]


def lab_plans(resolver: Resolver) -> dict[str, Record]:
    """Return the plan of each lab of a checked configuration; raises UserError for the first that cannot be."""
    return {name: _Lab(name, lab, resolver).plan() for name, lab in resolver.config["labs"].items()}


def run_plan(plan: Record) -> Record:
    """Return the part of a plan that a run depends on: not what is drawn, and of claims what they need alone."""
    kept = {name: value for name, value in plan.items() if name not in ANALYSIS}
    return {**kept, "claims": {name: claim.get("needs", {}) for name, claim in plan["claims"].items()}}


class _Lab:
    def __init__(self, name: str, lab: Mapping[str, Any], resolver: Resolver) -> None:
        self._name, self._lab, self._resolver = name, lab, resolver
        self._where = f"config: labs.{name}"
        self._kinds = {arm: own.get("kind", lab["kind"]) for arm, own in lab["arms"].items()}
        self._axes: dict[str, list[Any]] = lab["axis"]
        self._combinations = [
            {path[0]: value for path, value in one.items()}
            for one in combinations({(path,): values for path, values in self._axes.items()}, lab["zip"], self._where)
        ]
        self._reference = next(iter(lab["arms"]))
        self._engines: dict[str, Record] = {}

    def plan(self) -> Record:
        lab, config = self._lab, self._resolver.config
        self._check()
        cells = [cell for arm in lab["arms"] for cell in self._cells(arm)]
        for arm in lab["arms"]:
            if not any(cell["arm"] == arm for cell in cells):
                raise UserError(f"{self._where}.arms.{arm}: `only` leaves none of the axis values.")
        _check_distinct(cells, self._where)
        has_aa = lab["aa"] and self._kinds[self._reference] != "static" and SAME not in lab["arms"]
        if has_aa:
            self._kinds[SAME] = self._kinds[self._reference]
            cells.append({**self._middle(cells), "arm": SAME})
        labels = {arm: own.get("label", arm) for arm, own in lab["arms"].items()}
        labels |= {SAME: f"{labels[self._reference]}, again"} if has_aa else {}
        plan: Record = {
            "lab": self._name,
            "question": lab["question"],
            "kinds": self._kinds,
            "reference": self._reference,
            "arms": labels,
            "left_out": self._left_out(cells),
            "axes": self._axes,
            "zip": lab["zip"],
            "blocks": lab["blocks"],
            "servers": lab["servers"],
            "seed": lab["seed"],
            "phases": names_of(cells[0]["record"]),
            "groups": list(dict.fromkeys(name for cell in cells for name in _groups(cell["record"]))),
            "probes": lab["probes"],
            "figure": lab.get("figure", {"panels": []}),
            "claims": dict(lab["claims"]),
            "needs": lab["needs"],
            "cells": cells,
            "capacities": self._capacities(cells),
            "options": self._options(),
            "recorded": config["recorded"],
            "skipped": [] if config["remeasure_failed"] else list(SKIPPED),
            "averaging": config["averaging"],
        }
        if has_aa and AA_CLAIM not in plan["claims"]:
            plan["claims"] = {AA_CLAIM: _aa_claim(plan, cells[-1]["record"]), **plan["claims"]}
        claims_of(plan, self._where)
        self._check_figure(plan)
        return plan

    def _check(self) -> None:
        lab, where = self._lab, self._where
        if any("external" in step.get("reset", ()) for step in lab["phases"]):
            raise UserError(f"{where}.phases: `reset: [external]` is not built yet; `gpu` is.")
        for arm, kind in self._kinds.items():
            if kind != "serving" and lab["phases"]:
                raise UserError(f"{where}.arms.{arm}: `phases` are for servers, not for an arm of kind {kind}.")
        for arm, own in lab["arms"].items():
            for path, values in own.get("only", {}).items():
                known(path, self._axes, "axis", f"{where}.arms.{arm}.only")
                if odd := [one for one in values if one not in self._axes[path]]:
                    listed = ", ".join(map(str, self._axes[path]))
                    raise UserError(f"{where}.arms.{arm}.only: {path} has no value {odd[0]!r}; it has {listed}.")
        if both := {RATE, OF_CAPACITY} & self._axes.keys():
            if len(both) == 2:
                raise UserError(f"{where}.axis: a rate is either absolute or a share of the capacity; remove one.")
            if "offline" in self._kinds.values():
                raise UserError(f"{where}.axis: an offline lab has no {next(iter(both))}.")
        for share in self._axes.get(OF_CAPACITY, ()):
            if share != ENDLESS and (isinstance(share, bool) or not isinstance(share, int | float) or share <= 0):
                raise UserError(f"{where}.axis: {share!r} is no share of a capacity; give numbers above 0, or .inf.")
        if needs := lab["needs"].get("engine"):
            known(needs, ADAPTERS, "adapter", f"{where}.needs")

    def _cells(self, arm: str) -> Iterator[Record]:
        own = self._lab["arms"][arm]
        arguments, where = self._arguments(arm), f"{self._where}, {arm}"
        for at in self._combinations:
            if any(at[path] not in values for path, values in own.get("only", {}).items()):
                continue
            share = at.get(OF_CAPACITY)
            record = self._record(arguments, at, self._kinds[arm], where)
            cell: Record = {"arm": arm, "at": at, "record": record}
            if share is not None and share != ENDLESS:
                record["load"]["rate_req_s"] = None
                cell["share"] = share
            yield cell

    def _arguments(self, arm: str) -> Arguments:
        """Return `fixed` and an arm's own arguments together; of another kind it takes what all kinds have.

        null removes a fixed argument.
        """
        given, other = self._lab["arms"][arm], self._kinds[arm] != self._lab["kind"]
        own = {name: one for name, one in given.items() if name not in OWN and one is not None}
        fixed = {
            name: one
            for name, one in self._lab["fixed"].items()
            if (name in OF_ALL_KINDS or not other) and given.get(name, one) is not None
        }
        definition = _definition(self._kinds[arm])
        fixed = checked_part(fixed, definition, f"{self._where}.fixed")
        return merge_arguments(fixed, checked_part(own, definition, f"{self._where}.arms.{arm}"))

    def _record(self, arguments: Arguments, at: At, kind: str, where: str) -> Record:
        """Return the record of the first block; the rate of a share is a stand-in."""
        placed, fields = _placed(arguments, at, where)
        _no_lists(placed, where)
        offline = kind == "offline"
        placed = checked_part(placed, _definition(kind), where, fill=True)
        for missing in (one for one in (OFFLINE_REQUIRED if offline else REQUIRED) if one not in placed):
            raise UserError(f"{where}: no `{missing}` is given, neither in `fixed` nor in the arm, nor as an axis.")
        found = self._resolver.resolve(placed, where)
        self._engines[found.engine["name"]] = found.engine
        if fields:
            found = self._derived(found, fields, where)
        if offline:
            require(found.engine, "in_process", "an offline lab", where)
            record = make_offline_point(found, 0).record
            self._check_kept_up(found, record, where)
            return record
        if kind == "static":
            require(found.engine, "static_batches", "a lab of kind static", where)
        record = make_point(found.arguments, found.engine, found.model, found.dataset, 0, where).record
        check_enough_prompts(record, where)
        self._check_kept_up(found, record, where)
        return phases_record(record, self._lab["phases"], self._where) if self._lab["phases"] else record

    def _check_kept_up(self, found: Resolved, record: Record, where: str) -> None:
        if self._lab["servers"] == "together" and not is_static(record):
            gpus = self._resolver.config["resources"]["gpus"]
            check_kept_up(found.engine, record["server"]["args"], gpus, where.rpartition(", ")[2], self._where)

    def _derived(self, found: Resolved, fields: Mapping[str, Any], where: str) -> Resolved:
        """Return arguments whose dataset is changed in some fields, under a name of its own."""
        name = found.arguments["dataset"]
        declared = entry = self._resolver.dataset_entry(name, where)
        for field, value in fields.items():
            changed, entry = with_field(name, entry, field, value)
            name = name if entry == declared else changed
        entry = checked_part(entry, "dataset", f"{where}, dataset")
        return replace(found, dataset=dataset_record(name, entry, found.model, found.flags))

    def _capacities(self, cells: list[Record]) -> list[Record]:
        """Return what is measured first where rates are shares: the reference under all requests at once."""
        found: list[Record] = []
        for cell in cells:
            at = {path: value for path, value in cell["at"].items() if path != OF_CAPACITY}
            if "share" not in cell or any(one["at"] == at for one in found):
                continue
            arguments, kind = self._arguments(self._reference), self._kinds[self._reference]
            record = self._record(arguments, {**at, OF_CAPACITY: ENDLESS}, kind, f"{self._where}, capacity")
            found.append({"at": at, "record": record})
        return found

    def _middle(self, cells: list[Record]) -> Record:
        """Return the reference's cell at the middle value of each axis."""
        own = [cell for cell in cells if cell["arm"] == self._reference]
        return own[len(own) // 2]

    def _left_out(self, cells: list[Record]) -> dict[str, str]:
        """Return the arms that cannot be measured here, since their engine is not installed, and why."""
        if self._resolver.config["recorded"]:
            return {}
        engines = {cell["arm"]: cell["record"]["engine"] for cell in cells}
        return {
            arm: f"{engine['package']} is not installed"
            for arm, engine in engines.items()
            if engine["version"] == NOT_INSTALLED
        }

    def _options(self) -> dict[str, Record]:
        """Return how sessions run, by the engine's name."""
        config = self._resolver.config
        found = {}
        for name in self._engines:
            engine = config["engines"][name]
            found[name] = {
                **{one: engine[one] for one in ("python", "port", "startup_timeout_s")},
                "interval_s": config["collectors"]["interval_s"],
                "recorded": None,
                "remeasure": config["remeasure"],
            }
        return found

    def _check_figure(self, plan: Record) -> None:
        """Raise UserError for a panel of a metric, an axis or an arm that there is not."""
        for number, panel in enumerate(plan["figure"]["panels"], start=1):
            where = f"{self._where}.figure, panel {number}"
            for y in [panel["y"]] if isinstance(panel["y"], str) else panel["y"]:
                if panel["kind"] == "series":
                    known(metric_of(y).column, SERIES, "value over time", where)
                elif "*" in y and panel["kind"] == "stack":
                    check_pattern(y, plan, where)
                else:
                    check_metric(y, plan, where)
            if panel["kind"] == "pareto":
                if "x" not in panel:
                    raise UserError(f"{where}: a pareto panel needs a metric as `x`.")
                check_metric(panel["x"], plan, where)
            elif "x" in panel:
                known(panel["x"], [*plan["axes"], "phase", "arm"], "axis", where)
            elif panel["kind"] == "line":
                raise UserError(f"{where}: a line needs `x`, one of the axes {', '.join(plan['axes']) or '(none)'}.")
            by = panel.get("by", [])
            for one in [by] if isinstance(by, str) else by:
                known(one, [*plan["axes"], "phase", "arm"], "axis", where)
            if "over" in panel:
                if panel["kind"] not in ("line", "bars"):
                    raise UserError(f"{where}: `over` is for lines and bars, not for {panel['kind']}.")
                known(panel["over"], plan["arms"], "arm", where)
            for path in panel.get("at", {}):
                known(path, plan["axes"], "axis", where)


def _definition(kind: str) -> str:
    """Return what the schema calls the arguments of a kind of lab."""
    return "offline_arguments" if kind == "offline" else "sweeps_arguments"


def _placed(arguments: Arguments, at: At, where: str) -> tuple[Arguments, dict[str, Any]]:
    """Return arguments with axis values in their places, and those that change a field of the dataset."""
    found, fields = {name: dict(one) if name in NESTED else one for name, one in arguments.items()}, {}
    for path, value in at.items():
        head, dot, rest = path.partition(".")
        if path in (RATE, OF_CAPACITY):
            load = found.setdefault("load", {})
            load["rate_req_s"] = value if path == RATE or value == ENDLESS else 1.0
            load.setdefault("arrival", "poisson")
        elif head == "dataset" and dot:
            fields[rest] = value
        elif head in NESTED and dot:
            found.setdefault(head, {})[rest] = value
        elif dot:
            raise UserError(f"{where}: no axis goes into {head!r}; paths begin with dataset, {', '.join(NESTED)}.")
        else:
            found[path] = value
    return found, fields


def _groups(record: Record) -> list[str]:
    """Return what the groups of requests of a mixture are called."""
    parts = record.get("dataset", {}).get("parts", [])
    return [str(part.get("name", number)) for number, part in enumerate(parts)]


def _no_lists(arguments: Arguments, where: str) -> None:
    flat = {name: one for name, one in arguments.items() if name not in NESTED}
    for part in NESTED:
        flat |= {f"{part}.{name}": one for name, one in arguments.get(part, {}).items()}
    for name, one in flat.items():
        if isinstance(one, list):
            raise UserError(f"{where}: {name} is a list; what is varied stands under `axis` or in the arms.")


def _check_distinct(cells: list[Record], where: str) -> None:
    """Raise UserError where two arms are one and the same wherever both are."""
    by_arm: dict[str, list[tuple[At, Record]]] = {}
    for cell in cells:
        by_arm.setdefault(cell["arm"], []).append((cell["at"], cell["record"]))
    arms = list(by_arm)
    for place, arm in enumerate(arms):
        for other in arms[:place]:
            pairs = [(mine, his) for at, mine in by_arm[arm] for there, his in by_arm[other] if at == there]
            if pairs and all(mine == his for mine, his in pairs):
                raise UserError(
                    f"{where}.arms: {other} and {arm} are the same configuration; remove one, the reference is "
                    f"measured twice anyway, as `{SAME}`."
                )


def _aa_claim(plan: Record, record: Record) -> Record:
    if plan["kinds"][SAME] == "offline":
        metric = "decode_step_mean_ms" if record["output_tokens"] > 1 else "prefill_s"
    else:
        limited = record["load"]["arrival"] in ("closed", ALL_AT_ONCE)
        metric = "output_throughput_tok_s" if limited else "e2e_mean_ms"
    if plan["phases"]:
        metric += f"@{plan['phases'][0]}"
    said = "the reference measured again is the same"
    return {"say": said, "ratio": [metric, SAME, plan["reference"]], "within": AA_WITHIN}
