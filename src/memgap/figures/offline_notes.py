"""The lines under a figure of an offline study: where its numbers come from, and which points are missing."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from memgap.figures.footer import write_footer
from memgap.figures.style import say_in_place
from memgap.tables.fate import DRAWN, INVALID, UNNEEDED, fate
from memgap.tables.provenance import provenance_line


def lost_points(points: pd.DataFrame) -> str:
    """Return a line such as "not drawn: opt-1.3b batch 1024 (oom)", "" where every point was measured."""
    fates = fate(points)
    failed = points.assign(status=points["status"].where(fates != INVALID, INVALID))[~fates.isin([*DRAWN, UNNEEDED])]
    failed = failed.assign(profiler=failed["profiler"].fillna("none"))
    groups = failed.groupby(["model", "status", "profiler"], sort=False)["batch_cap"]
    named = [
        f"{model} batch {', '.join(map(str, sorted(set(batches))))} ({status}{_under(str(profiler))})"
        for (model, status, profiler), batches in groups
    ]
    return "not drawn: " + "; ".join(named) if named else ""


def _under(profiler: str) -> str:
    return "" if profiler in ("", "none") else f" under {profiler}"


def write_notes(figure: Figure, points: pd.DataFrame, notes: Sequence[str] = (), alerts: Sequence[str] = ()) -> None:
    """Write under the figure its provenance, `notes` on what is drawn and, in red, `alerts` and the lost points."""
    red = [text for text in (*alerts, lost_points(points)) if text]
    write_footer(figure, [provenance_line(points), *notes], red)


def say_empty(axes: Axes, text: str) -> None:
    """Write a sentence into a panel that has nothing else, without ticks."""
    axes.set_xticks([])
    axes.set_yticks([])
    say_in_place(axes, text)
