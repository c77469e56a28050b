"""What figures of points over time share: which points get a panel, and what each panel is called."""

import json
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from memgap.figures.footer import write_footer
from memgap.figures.points import failure_note, suspect_note
from memgap.tables.fate import DRAWN, fate
from memgap.tables.provenance import provenance_line

MOST_PANELS = 8
NAMES = ("model", "engine", "experiment", "dataset", "cap_side", "arrival", "batch_cap")
"""Columns that may tell points apart, beside their flags."""
WORDS = {"batch_cap": "cap {}", "cap_side": "cap at the {}"}


def panels(points: pd.DataFrame) -> tuple[dict[str, str], str]:
    """Return the title of each point that gets a panel by its key, and a note on those that do not.

    These are the first repeats of the points that count, in the table's order; a title is what differs between them.
    """
    good = points[fate(points).isin(DRAWN)]
    first = good[good["repeat"] == good["repeat"].min()]
    rows = first.to_dict("records")
    flags = [json.loads(str(row["server_args"])) if isinstance(row["server_args"], str) else {} for row in rows]
    varied = [name for name in NAMES if first[name].nunique() > 1]
    if "experiment" in varied:  # it stands for what it sets
        varied = [name for name in varied if name in ("model", "experiment", "dataset", "batch_cap")]
    named = sorted({name for one in flags for name in one if any(other.get(name) != one[name] for other in flags)})
    named = [name for name in named if name not in ("max-num-seqs",) or "batch_cap" not in varied]
    titles = {
        str(row["key"]): _title(row, varied, {name: one.get(name) for name in named})
        for row, one in zip(rows[:MOST_PANELS], flags, strict=False)
    }
    if len(set(titles.values())) < len(titles):
        titles = {key: f"{title} ({key[:6]})" for key, title in titles.items()}
    left = len(rows) - MOST_PANELS
    return titles, f"{left} further points are not drawn" if left > 0 else ""


def write_small_print(figure: Figure, points: pd.DataFrame, notes: Sequence[str]) -> None:
    """Write under a figure that draws no averages: provenance, notes, points in doubt, in red those not drawn."""
    write_footer(figure, [provenance_line(points), *notes, suspect_note(points)], [failure_note(points)])


def _title(row: Mapping[Hashable, Any], varied: list[str], flags: Mapping[str, Any]) -> str:
    parts = [WORDS.get(name, "{}").format(row[name]) for name in varied]
    if "experiment" not in varied:  # experiments have names so that flags need not be read
        parts += [f"{name} {_value(value)}" for name, value in flags.items()]
    return ", ".join(parts) or str(row["model"])


def _value(value: Any) -> str:
    return "by default" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
