"""Claims: what a lab expects, as an effect of its arms with bounds, decided by an interval over the blocks."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from memgap.config.load import known
from memgap.errors import UserError
from memgap.labs import expected
from memgap.labs.metric import arm_of, check_metric, one_phase
from memgap.labs.names import FAILS, HOLDS, UNDECIDED, UNTESTED, Metric, value_text
from memgap.stats.intervals import student_interval

EFFECTS = ("ratio", "difference", "value", "trend", "linear")
BOUNDS = ("above", "below", "between", "within", "outside")
TAIL = 10
"""A percentile q is given by 10 / (1 - q) requests or more."""
SELF_PACED = ("closed", "all-at-once", "static", None)
"""Arrivals that follow the server; of others the throughput is what was asked, unless the engine was the limit."""
_PERCENTILE = re.compile(r"_p(9+|\d\d)(?:_|$)")
_MEDIAN = "_median_"
Row = Mapping[str, Any]
At = Mapping[str, Any]


class MissingError(Exception):
    """An effect has no value; the text says why."""


@dataclass(frozen=True)
class Term:
    """A metric at an arm."""

    metric: Metric
    arm: str
    phase: str

    @property
    def at(self) -> str:
        """Arm and phase."""
        return self.arm + (f"@{self.phase}" if self.phase and not self.metric.phase else "")

    @property
    def text(self) -> str:
        """In words."""
        return f"{self.metric.text} of {self.at}"


@dataclass(frozen=True)
class Claim:
    """A claim that was checked. `terms` are one or two, the second of a claim `of` another one is none; `axis` is the
    one of a trend or line, `tied` that and those in step with it; `bound` is one of `BOUNDS` with its numbers.
    """

    id: str
    say: str
    effect: str
    terms: tuple[Term, ...]
    bound: str
    limits: tuple[float, ...]
    at: Mapping[str, tuple[Any, ...]]
    axis: str = ""
    tied: tuple[str, ...] = ()
    of: "Claim | None" = None
    expected: str = ""
    points: bool = False
    offered: bool = False

    @property
    def in_logs(self) -> bool:
        """Whether effects are averaged as logarithms, as ratios are."""
        if self.points:
            return False
        return self.effect == "ratio" or (self.effect == "trend" and (self.of is None or self.of.in_logs))

    @property
    def neutral(self) -> float:
        """The effect that says that nothing differs."""
        if self.expected:
            return 0.0 if self.points else 1.0
        return 0.0 if self.effect == "difference" or (self.of is not None and not self.in_logs) else 1.0

    @property
    def region(self) -> tuple[float, float]:
        """Between which effects the claim holds; for `outside` between which it does not."""
        if self.bound == "above":
            return self.limits[0], math.inf
        if self.bound == "below":
            return -math.inf, self.limits[0]
        if self.bound == "between":
            return self.limits[0], self.limits[1]
        return self.neutral - self.limits[0], self.neutral + self.limits[0]

    @property
    def about(self) -> str:
        """What the effect is, in words."""
        if self.of is not None:
            return f"trend of {self.of.id} over {self.axis}"
        first, *other = self.terms
        joined = {"ratio": " by ", "difference": " less ", "linear": " over "}.get(self.effect, "")
        if other and other[0].metric == first.metric:
            told = f"{self.effect} of {first.metric.text}: {first.at}{joined}{other[0].at}"
        else:
            told = f"{self.effect} of {joined.join(term.text for term in self.terms)}"
        told += f" over {self.axis}" if self.axis else ""
        if self.expected:
            told += f" {'less' if self.points else 'by'} expected {self.expected}"
        named = (f"{path} {' '.join(map(str, values))}" for path, values in self.at.items())
        return told + "".join(f", at {one}" for one in named)

    @property
    def claimed(self) -> str:
        """The bound in words."""
        return f"{self.bound} {' and '.join(f'{limit:g}' for limit in self.limits)}"


@dataclass(frozen=True)
class Result:
    """What became of a claim; the effect and its 95 % interval are None where there are none."""

    verdict: str
    reason: str = ""
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    blocks: int = 0
    rows: tuple[Row, ...] = ()


def claims_of(plan: Mapping[str, Any], where: str) -> dict[str, Claim]:
    """Return the claims of a lab's plan by id, that of the A/A arm first.

    Raises UserError for a claim about what there is not, with two effects or bounds, or none.
    """
    found: dict[str, Claim] = {}
    specs = {name: one for name, one in plan["claims"].items() if not not_built(one)}
    waiting = [one for one in specs if one not in found]
    while waiting:
        ready = [one for one in waiting if _named_claim(specs, one) in (None, *found)]
        if not ready:
            raise UserError(f"{where}.claims.{waiting[0]}: its trend is of a claim that is of this one; name another.")
        for one in ready:
            found[one] = _claim(plan, one, specs[one], found, f"{where}.claims.{one}")
        waiting = [one for one in waiting if one not in found]
    return {one: found[one] for one in specs}


def not_built(spec: Mapping[str, Any]) -> str:
    """Return why nothing can test a claim yet, "" for one that can be."""
    return str(spec.get("needs", {}).get("not_built", ""))


def _named_claim(specs: Mapping[str, Any], one: str) -> str | None:
    first = str((specs[one].get("trend") or [""])[0])
    return first if first in specs else None


def _claim(
    plan: Mapping[str, Any], name: str, spec: Mapping[str, Any], before: Mapping[str, Claim], where: str
) -> Claim:
    effects, bounds = [one for one in EFFECTS if one in spec], [one for one in BOUNDS if one in spec]
    if len(effects) != 1:
        raise UserError(f"{where}: give one effect of {', '.join(EFFECTS)}, not {len(effects)}.")
    if len(bounds) != 1:
        raise UserError(f"{where}: give one bound of {', '.join(BOUNDS)}, not {len(bounds)}.")
    (effect,), (bound,) = effects, bounds
    given: Sequence[str] = spec[effect]
    limits = tuple(float(one) for one in (spec[bound] if bound == "between" else [spec[bound]]))
    if "expected" in spec:
        known(spec["expected"], expected.FUNCTIONS, "expectation", where)
        _need(effect not in ("trend", "linear"), where, f"`expected` has no meaning for a {effect}; remove it")
    elif spec.get("points"):
        raise UserError(f"{where}: `points` is for what is `expected`; name that, or remove it.")
    if bound in ("within", "outside") and effect in ("value", "linear") and "expected" not in spec:
        raise UserError(
            f"{where}: `{bound}` needs something to compare a {effect} with; give `expected`, or `between`."
        )
    at = _at(plan, spec.get("at", {}), where)
    common: dict[str, Any] = {
        "id": name,
        "say": spec["say"],
        "effect": effect,
        "bound": bound,
        "limits": limits,
        "at": at,
        **{one: spec[one] for one in ("expected", "points", "offered") if one in spec},
    }
    if effect in ("trend", "linear"):
        if effect == "trend" and given[0] in before:
            _need(len(given) == 2, where, "a trend of a claim is `[claim, axis]`")
            of = before[given[0]]
            known(given[1], plan["axes"], "axis", where)
            return Claim(terms=of.terms, axis=given[1], tied=_tied(plan, given[1]), of=of, **common)
        axis = given[1] if effect == "trend" or given[1] in plan["axes"] else ""
        if effect == "trend":
            known(axis, plan["axes"], "axis", where)
        term = _term(plan, given[0], given[2] if len(given) > 2 else plan["reference"], where)
        over = () if axis else (_term(plan, given[1], given[2] if len(given) > 2 else plan["reference"], where),)
        return Claim(terms=(term, *over), axis=axis, tied=_tied(plan, axis), **common)
    if effect == "value":
        _need(len(given) == 2, where, "a value is `[metric, arm]`")
        return Claim(terms=(_term(plan, given[0], given[1], where),), **common)
    _need(len(given) in (3, 4), where, f"a {effect} is `[metric, arm, arm]` or `[metric, arm, metric, arm]`")
    pairs = ((given[0], given[1]), (given[0], given[2]) if len(given) == 3 else (given[2], given[3]))
    return Claim(terms=tuple(_term(plan, metric, arm, where) for metric, arm in pairs), **common)


def _tied(plan: Mapping[str, Any], axis: str) -> tuple[str, ...]:
    """Return an axis and those that go in step with it; none without an axis."""
    return tuple(next((group for group in plan["zip"] if axis in group), [axis] if axis else []))


def _need(fits: bool, where: str, form: str) -> None:
    if not fits:
        raise UserError(f"{where}: {form}.")


def _term(plan: Mapping[str, Any], metric: str, arm: str, where: str) -> Term:
    name, phase = arm_of(arm)
    known(name, plan["arms"], "arm", where)
    found = check_metric(metric, plan, where, name)
    if phase:
        known(phase, plan["phases"], "phase", where)
    phase = one_phase(found, phase, where)
    if plan["phases"] and not phase:
        raise UserError(f"{where}: say the phase of {metric}, such as {metric}@{plan['phases'][0]}.")
    return Term(found, name, phase)


def _at(plan: Mapping[str, Any], given: At, where: str) -> dict[str, tuple[Any, ...]]:
    found = {}
    for path, value in given.items():
        known(path, plan["axes"], "axis", f"{where}.at")
        values = value if isinstance(value, list) else [value]
        for one in values:
            if one not in plan["axes"][path]:
                listed = ", ".join(map(str, plan["axes"][path]))
                raise UserError(f"{where}.at: {path} has no value {one!r}; it has {listed}.")
        found[path] = tuple(values)
    return found


class Cells:
    """The rows of a lab by `arm`, `block`, `phase` and axis values `at`; `left_out` says why an arm has none."""

    def __init__(self, rows: Iterable[Row], axes: Mapping[str, Sequence[Any]], left_out: Mapping[str, str]) -> None:
        self._axes, self._left_out = list(axes), left_out
        self._rows: dict[tuple[Any, ...], Row] = {}
        self.places: dict[str, list[dict[str, Any]]] = {}
        self.blocks: list[int] = []
        for row in rows:
            at = dict(row["at"])
            self._rows[row["arm"], row["block"], row["phase"], *(value_text(at[path]) for path in self._axes)] = row
            if at not in self.places.setdefault(row["arm"], []):
                self.places[row["arm"]].append(at)
            if row["block"] not in self.blocks:
                self.blocks.append(row["block"])

    def row(self, term: Term, at: At, block: int) -> Row:
        """Return the row of a term; raises MissingError where it is not there or cannot be believed."""
        if term.arm in self._left_out:
            raise MissingError(f"{term.arm}: {self._left_out[term.arm]}")
        row = self._rows.get((term.arm, block, term.phase, *(value_text(at[path]) for path in self._axes)))
        if row is None:
            raise MissingError(f"{term.arm} has no point there")
        if row["status"] != "ok":
            said = row.get("error_message")
            raise MissingError(f"{term.arm}: {row['status']}{f': {said}' if isinstance(said, str) else ''}")
        if row["verdict"] == "invalid":
            raise MissingError(f"{term.arm}: no valid point ({row.get('verdict_reasons') or 'its verdict is invalid'})")
        return row

    def value(self, term: Term, at: At, block: int, offered: bool) -> float:
        """Return the value of a term; raises MissingError where there is none that a claim may rest on."""
        row, name = self.row(term, at, block), term.metric.name
        if reason := too_few(term.metric, row):
            raise MissingError(reason)
        value = row.get(name)
        if value is None or not math.isfinite(value):
            raise MissingError(f"{term.text} was not measured")
        if (
            "throughput" in name
            and not offered
            and row.get("arrival") not in SELF_PACED
            and row.get("limit") != "engine"
        ):
            raise MissingError(f"the throughput of {term.arm} is the offered load, not what it can do")
        return float(value)


def too_few(metric: Metric, row: Row) -> str:
    """Return why a percentile is of too few values, "" where it is not or is none: q needs 10 / (1 - q).

    Gaps between tokens are counted by tokens, all else by requests.
    """
    found = _PERCENTILE.search(metric.column)
    if found is None and not (metric.group and _MEDIAN in metric.column):
        return ""
    needed = round(TAIL / (1 - float(f"0.{found[1] if found else 5}")))
    gaps = metric.column.startswith("itl_")
    requests = row.get("choices_completed") or row.get("requests_completed")
    counted = requests
    if metric.group:
        counted = row.get(f"{metric.column.partition('_')[0]}_values.{metric.group}")
    elif gaps:
        tokens = row.get("output_tokens")
        counted = None if tokens is None or requests is None else tokens - requests
    what = "gaps between tokens" if gaps else "requests"
    if counted is None or not math.isfinite(counted) or counted >= needed:
        return ""
    return f"{metric.text} needs {needed} {what}, there are {counted:.0f}"


def judged(claim: Claim, cells: Cells) -> Result:
    """Return what became of a claim by the rows of a lab."""
    values, reasons, used = [], dict[str, int](), list[Row]()
    for block in sorted(cells.blocks):
        try:
            value, rows = _effect(claim, cells, block)
        except MissingError as missing:
            reasons[str(missing)] = reasons.get(str(missing), 0) + 1
            continue
        values.append(value)
        used += rows
    # of an arm that failed once and was left out then, the failure says more
    why = max(reasons, key=lambda one: (": missing" not in one, reasons[one]), default="nothing was measured")
    if not values:
        return Result(UNTESTED, why)
    return _decided(claim, values, f"{len(cells.blocks) - len(values)} blocks lack it: {why}" if reasons else "", used)


def _decided(claim: Claim, values: Sequence[float], note: str, rows: Sequence[Row]) -> Result:
    back: Callable[[float], float] = math.exp if claim.in_logs else float
    effect, found = back(float(np.mean(values))), student_interval(values, "blocks")
    if found is None:
        said = "one block has no interval"
        return Result(UNDECIDED, "; ".join(filter(None, [said, note])), effect, blocks=1, rows=tuple(rows))
    low, high = back(found.low), back(found.high)
    return Result(verdict_of(claim, low, high), note, effect, low, high, len(values), tuple(rows))


def verdict_of(claim: Claim, low: float, high: float) -> str:
    """Return the verdict of an interval: wholly on the claimed side, wholly beyond it, or neither."""
    least, most = claim.region
    inside, beyond = least <= low and high <= most, high < least or low > most
    if claim.bound in ("above", "below") and claim.limits[0] in (low, high):  # at the limit is not above it
        inside, beyond = False, low == high
    if claim.bound == "outside":
        inside, beyond = beyond, inside
    return HOLDS if inside else FAILS if beyond else UNDECIDED


def _effect(claim: Claim, cells: Cells, block: int) -> tuple[float, list[Row]]:
    """Return the effect in one block, ratios as logarithms, averaged over the values of axes that the claim leaves."""
    places = _places(claim, cells)
    if not places:
        raise MissingError("its arms have no axis values in common there")
    found = [_at_place(claim, cells, place, block) for place in places]
    return float(np.mean([value for value, _ in found])), [row for _, rows in found for row in rows]


def _places(claim: Claim, cells: Cells) -> list[dict[str, Any]]:
    """Return the axis values that a claim is about, without those of the axis that it goes along."""
    if claim.effect == "linear" and not claim.axis:
        return [{}]
    arms = dict.fromkeys(term.arm for term in claim.terms)
    common = [at for at in cells.places.get(next(iter(arms)), []) if all(at in cells.places.get(a, []) for a in arms)]
    found: list[dict[str, Any]] = []
    for at in common:
        if all(at[path] in values for path, values in claim.at.items() if path != claim.axis):
            rest = {path: value for path, value in at.items() if path not in claim.tied}
            if rest not in found:
                found.append(rest)
    return found


def _at_place(claim: Claim, cells: Cells, place: At, block: int) -> tuple[float, list[Row]]:
    if claim.effect == "linear":
        return _line(claim, cells, place, block)
    if claim.effect == "trend":
        along = _along(claim, cells, place)
        if len(along) < 2:
            raise MissingError(f"a trend needs two values of {claim.axis}")
        of = claim.of
        parts = [
            _trended(claim, cells, at, block) if of is None else _at_place(of, cells, at, block)
            for at in (along[0], along[-1])
        ]
        (first, before), (last, after) = parts
        return last - first, [*before, *after]
    term, *other = claim.terms
    value = cells.value(term, place, block, claim.offered)
    rows = [cells.row(one, place, block) for one in claim.terms]
    if other:
        second = cells.value(other[0], place, block, claim.offered)
        value = _log(value, term) - _log(second, other[0]) if claim.effect == "ratio" else value - second
    return _against(claim, value, rows), rows


def _trended(claim: Claim, cells: Cells, at: At, block: int) -> tuple[float, list[Row]]:
    (term,) = claim.terms
    row = cells.row(term, at, block)
    return _log(cells.value(term, at, block, claim.offered), term), [row]


def _against(claim: Claim, value: float, rows: Sequence[Row]) -> float:
    """Return the value by, or less, what is expected; ratios are logarithms here."""
    if not claim.expected:
        return value
    try:
        wanted = expected.FUNCTIONS[claim.expected](rows)
    except expected.UnknownError as error:
        raise MissingError(f"{claim.expected}: {error}") from error
    if claim.points:
        return (math.exp(value) if claim.effect == "ratio" else value) - wanted
    if wanted <= 0:
        raise MissingError(f"{claim.expected} is {wanted:g} here, which nothing can be divided by; compare by `points`")
    return value - math.log(wanted) if claim.in_logs else value / wanted


def _log(value: float, term: Term) -> float:
    if value <= 0:
        raise MissingError(f"{term.text} is {value:g}, and a ratio needs more than 0")
    return math.log(value)


def _along(claim: Claim, cells: Cells, place: At) -> list[At]:
    """Return the axis values along the claim's axis at which all of its arms were measured, in the order asked for."""
    arms = dict.fromkeys(term.arm for term in claim.terms)
    places = [at for at in cells.places.get(claim.terms[0].arm, []) if place.items() <= at.items()]
    common = [at for at in places if all(at in cells.places.get(arm, []) for arm in arms)]
    if asked := claim.at.get(claim.axis):
        return [at for value in asked for at in common if at[claim.axis] == value]
    return list(common)


def _line(claim: Claim, cells: Cells, place: At, block: int) -> tuple[float, list[Row]]:
    """Return R2 of a straight line through a metric over an axis, or over another metric at all axis values."""
    term, *over = claim.terms
    if over:
        places: Sequence[At] = [at for at in cells.places.get(term.arm, []) if _chosen(claim, at)]
        xs = [cells.value(over[0], at, block, claim.offered) for at in places]
    else:
        places = _along(claim, cells, place)
        xs = [_number(claim.axis, at[claim.axis]) for at in places]
    ys = [cells.value(term, at, block, claim.offered) for at in places]
    if len(set(xs)) < 3:
        raise MissingError("a line needs three values or more")
    r2 = float(np.corrcoef(xs, ys)[0, 1] ** 2) if len(set(ys)) > 1 else 0.0
    return r2, [cells.row(term, at, block) for at in places]


def _chosen(claim: Claim, at: At) -> bool:
    return all(at[path] in values for path, values in claim.at.items())


def _number(axis: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MissingError(f"{axis} has the value {value}, which is no number")
    return float(value)
