"""The tables of a lab: its points with arms, blocks and axis values, every second of some, and its claims."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from memgap.declared.tables import TableSpec
from memgap.labs.claims import Cells, Claim, Result, claims_of, judged, not_built
from memgap.labs.names import CLAIM_COLUMNS, UNTESTED
from memgap.labs.needs import unmet_in_plan, unmet_in_points
from memgap.labs.plan import AA_CLAIM
from memgap.labs.run import read_outcome
from memgap.labs.values import NAMED, TIMES, Row, lab_rows, lab_table, series_rows
from memgap.tables.columns import Columns
from memgap.tables.forms import Content
from memgap.tables.inputs import Inputs
from memgap.tables.provenance import SIMULATED

CLAIM_TEXT = ("lab", "id", "sentence", "about", "claimed", "verdict", "reason", "source", "device", "date_utc")
TEXT = (
    *NAMED[:4],
    *("sweep", "experiment", "key", "session", "model", "engine", "engine_version", "device", "gpu_name", "driver"),
    *(
        "cap_side",
        "dataset",
        "dtype",
        "arrival",
        "status",
        "flags",
        "verdict",
        "limit",
        "verdict_reasons",
        "error_kind",
    ),
    *("error_message", "date_utc", "server_args", "mps", "source", "averaging", "of_window", "mode", "profiler"),
    *("attention_backend", "async_scheduling", "detokenize"),
)
TABLE = TableSpec(
    name="lab",
    title="Tables of a lab",
    of="lab",
    plan="lab",
    writes={
        "points": "results/labs/{group}.csv",
        "series": "results/labs/{group}.series.csv",
        "claims": "results/labs/{group}.claims.csv",
    },
    wanted=("points", "claims"),
    shown=("claims",),
    category="Labs",
    caption="""
The claims of lab {group}: the effect over the blocks with its 95 % interval, and whether the interval lies wholly on
the claimed side (holds), wholly beyond it (does not hold), or neither (undecided). What was not tested says why.
""",
)


class _Points(Columns):
    def typed(self, table: pd.DataFrame) -> pd.DataFrame:
        texts = {name: table[name].astype("string").astype(object) for name in TEXT if name in table}
        typed = table.assign(**texts)
        for name in texts:
            typed[name] = typed[name].where(typed[name].notna(), None)
        return typed.copy()


READ = {
    "points": _Points("a table of a lab", NAMED, text=TEXT, needed=("lab", "arm", "block")),
    "series": Columns(
        "a table of a lab's seconds", ("arm", "label", "block", *TIMES), text=("arm", "label", "quantity")
    ),
    "claims": Columns("a table of claims", CLAIM_COLUMNS, text=CLAIM_TEXT, numbers=True),
}


def make(inputs: Inputs) -> dict[str, Content]:
    """Return the tables of the inputs' plan."""
    return {**tables_of(inputs.plan, inputs.points)}


def tables_of(plan: Mapping[str, Any], points: Path) -> dict[str, pd.DataFrame]:
    """Return the tables of a lab's plan by their names in `TABLE`."""
    rows = lab_rows(plan, points)
    seen = {str(row["device"]) for row in rows if row.get("device")}
    told = read_outcome(points.parent, plan["lab"]).get("unmet", {})
    unmet = {**unmet_in_points(plan, seen), **unmet_in_plan(plan), **told}
    return {
        "points": lab_table(plan, rows),
        "series": series_rows(plan, points),
        "claims": claims_table(plan, rows, unmet),
    }


def claims_table(plan: Mapping[str, Any], rows: Sequence[Row], unmet: Mapping[str, str]) -> pd.DataFrame:
    """Return one row a claim of a lab; `unmet` are the needs that the machine did not meet, by claim, "" for all."""
    cells = Cells(rows, plan["axes"], plan["left_out"])
    found, claims = [], claims_of(plan, f"labs.{plan['lab']}")
    for name, spec in plan["claims"].items():
        if why := not_built(spec):
            found.append(dict.fromkeys(CLAIM_COLUMNS) | _untested(plan, name, spec["say"], why))
            continue
        claim = claims[name]
        reason = unmet.get("") or unmet.get(name)
        result = Result(UNTESTED, reason) if reason else judged(claim, cells)
        found.append(_claim_row(plan, claim, result))
    return pd.DataFrame(found, columns=list(CLAIM_COLUMNS))


def _untested(plan: Mapping[str, Any], name: str, say: str, why: str) -> dict[str, Any]:
    named = {"lab": plan["lab"], "id": name, "sentence": say, "about": "", "claimed": ""}
    return {**named, "blocks": 0, "verdict": UNTESTED, "reason": why}


def _claim_row(plan: Mapping[str, Any], claim: Claim, result: Result) -> dict[str, Any]:
    told = [row for row in result.rows if row.get("engine")]
    reason = result.reason
    if claim.id == AA_CLAIM and not (result.low or -math.inf) <= claim.neutral <= (result.high or math.inf):
        beside = "the interval leaves out what is the same by construction, so smaller effects may be accidents"
        reason = "; ".join(filter(None, [beside, reason]))
    return {
        "lab": plan["lab"],
        "id": claim.id,
        "sentence": claim.say,
        "effect": result.effect,
        "low": result.low,
        "high": result.high,
        "blocks": result.blocks,
        "verdict": result.verdict,
        "reason": reason or None,
        "source": _source(told),
        "about": claim.about,
        "claimed": claim.claimed,
        "device": ", ".join(sorted({str(row.get("gpu_name") or row.get("device")) for row in told})) or None,
        "date_utc": max((str(row["date_utc"])[:10] for row in told if row.get("date_utc")), default=None),
    }


def _source(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Return where numbers come from: measured, recorded, simulated, or several of them."""
    kinds = {"simulated" if SIMULATED in str(row["engine"]) else str(row["source"]) for row in rows}
    return ", ".join(sorted(kinds)) or None
