"""The small print under every figure: where its numbers come from, what is drawn, and in red what is not."""

import textwrap
from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from memgap.figures.points import failure_note, suspect_note
from memgap.figures.style import ALERT, GREY
from memgap.tables.provenance import averaging_note, provenance_line

CHARACTERS_PER_IN = 18
"""How many characters of the small print fit into an inch."""


def write_footer(
    figure: Figure, notes: Sequence[str], alerts: Sequence[str] = (), most_alert_lines: int | None = None
) -> None:
    """Write sentences under a figure; with `alerts`, which follow, all of it is red. Empty ones are left out."""
    width = round(CHARACTERS_PER_IN * figure.get_figwidth())
    lines = [line for note in notes for line in textwrap.wrap(note, width)]
    red = [line for alert in alerts for line in textwrap.wrap(alert, width)]
    text = "\n".join([*lines, *red[:most_alert_lines]])
    figure.supxlabel(text, fontsize=6, color=ALERT if red else GREY)


def write_provenance(
    figure: Figure, table: pd.DataFrame, *, bars: str = "", rates: bool = True, by: Sequence[str] = ("model",)
) -> None:
    """Write under a figure of points: provenance, averages over what, bars, points in doubt, in red those not drawn.

    `bars`: see `points.bars_note`. `rates`: the figure draws rates and latencies, which a verdict is about. `by`: the
    columns that name a point beside its cap.
    """
    doubted = suspect_note(table, by) if rates else ""
    averages = averaging_note(table) if rates else ""
    notes = [provenance_line(table, rates), averages, bars, doubted]
    write_footer(figure, notes, [failure_note(table, by)] if rates else [])
