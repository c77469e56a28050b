"""The table of a lab's arms against its reference: faster, slower or equal, for each metric and each value of the axes.

All intervals of an arm hold at once; see `memgap.stats.paired`. An arm that was not measured, such as a version that
refuses a flag, is a row with the reason.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

import pandas as pd

from memgap.canonical import canonical_json
from memgap.declared.tables import TableSpec
from memgap.labs.names import leading, value_text
from memgap.labs.values import Row, lab_rows
from memgap.stats.paired import BETTER_MORE, METRICS, Key, gain, judged
from memgap.tables.forms import Content
from memgap.tables.inputs import Inputs
from memgap.verdict.judge import OFFERED

MARGIN = 0.02
"""Ratios within this share of 1 are equal."""
COLUMNS = [
    *("lab", "arm", "label", "reference", "metric", "at", "phase", "reference_value", "value", "ratio", "low", "high"),
    *("blocks", "verdict", "reason"),
]
TABLE = TableSpec(
    name="lab_arms",
    title="Arms against the reference",
    of="lab",
    plan="lab",
    writes={"arms": "results/labs/{group}.arms.csv"},
    wanted=("arms",),
    shown=("arms",),
    category="Labs",
    caption="""
Each arm of lab {group} against its reference, paired within blocks: the ratio, better above 1, with an interval that
holds for all metrics of an arm at once with 95 %, and whether the arm is faster, slower, or equal within 2 %.
""",
)


def make(inputs: Inputs) -> dict[str, Content]:
    """Return the table of the inputs' plan."""
    return {"arms": against_reference(inputs.plan, list(lab_rows(inputs.plan, inputs.points)))}


def against_reference(plan: Mapping[str, Any], rows: Sequence[Row]) -> pd.DataFrame:
    """Return one row an arm, metric and place, or an arm, place and reason why there is none."""
    found: list[dict[str, Any]] = []
    for arm, label in plan["arms"].items():
        if arm != plan["reference"]:
            named = {"lab": plan["lab"], "arm": arm, "label": label, "reference": plan["reference"]}
            if arm in plan["left_out"]:
                found.append({**named, "verdict": "refused", "reason": plan["left_out"][arm]})
            found += [{**named, **one} for one in _compared(plan["reference"], arm, rows, list(leading(plan)))]
    return pd.DataFrame(found, columns=COLUMNS)


def _compared(reference: str, arm: str, rows: Sequence[Row], axes: Sequence[str]) -> Iterator[dict[str, Any]]:
    theirs = {(_place(row), row["block"]): row for row in rows if row["arm"] == reference}
    pairs = dict[Key, list[tuple[float, float]]]()
    places, refused = dict[str, Row](), dict[str, str]()
    for row in (one for one in rows if one["arm"] == arm):
        place, other = _place(row), theirs.get((_place(row), row["block"]))
        if other is None:
            continue
        places.setdefault(place, row)
        why = next((f"{one['arm']}: {said}" for one in (row, other) if (said := _lacks(one))), "")
        if why:
            refused.setdefault(place, why)
            continue
        for metric in METRICS:
            theirs_value, value = _number(other, metric), _number(row, metric)
            if theirs_value is not None and value is not None:
                pairs.setdefault((metric, place), []).append((theirs_value, value))
    gains = {(name, place): [gain(name, *one) for one in own] for (name, place), own in pairs.items()}
    for (metric, place), one in judged(gains, MARGIN).items():
        before, after = (fmean(pair[side] for pair in pairs[metric, place]) for side in (0, 1))
        numbers = {"reference_value": before, "value": after, "ratio": one.ratio, "low": one.low, "high": one.high}
        concluded = {"blocks": one.blocks, "verdict": one.verdict, "reason": refused.get(place)}
        yield {"metric": metric, **_words(places[place], axes), **numbers, **concluded}
    measured = {place for _, place in pairs}
    for place, why in refused.items():
        if place not in measured:
            yield {**_words(places[place], axes), "blocks": 0, "verdict": "refused", "reason": why}


def _place(row: Row) -> str:
    return canonical_json([row["phase"], row["at"]])


def _words(row: Row, axes: Sequence[str]) -> dict[str, str]:
    at = ", ".join(f"{path.rpartition('.')[2]} {value_text(row['at'][path])}" for path in axes)
    return {"at": at, "phase": row["phase"]}


def _lacks(row: Row) -> str:
    """Return why a row has no numbers that a comparison may rest on."""
    if row["status"] != "ok":
        return f"{row['status']}: {row.get('error_message') or 'no reason given'}"
    return f"invalid: {row.get('verdict_reasons')}" if row["verdict"] == "invalid" else ""


def _number(row: Row, metric: str) -> float | None:
    value = row.get(metric)
    if not isinstance(value, float | int) or not math.isfinite(value) or value <= 0:
        return None
    return None if metric == BETTER_MORE[0] and row.get("limit") == OFFERED else float(value)
