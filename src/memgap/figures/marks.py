"""How a model's points are drawn on an axis."""

from collections.abc import Iterator

import pandas as pd
from matplotlib.axes import Axes

from memgap.figures.style import ALERT, model_looks
from memgap.stats.averaging import WINDOW
from memgap.tables.fate import GOOD, PREEMPTED

SIDE_STYLE = {"client": "-", "server": "--"}


def draw_models(axes: Axes, data: pd.DataFrame, x: str, y: str, y_low: str, y_high: str) -> None:
    """Draw one line with markers for each model (and cap side), bars over the 95 % intervals.

    Preempted points are open red-edged markers without a line; see `parts` for hollow ones.
    """
    sides = data["cap_side"].nunique()
    for model, (colour, marker) in model_looks(list(dict.fromkeys(data["model"]))).items():
        for side, own in data[data["model"] == model].groupby("cap_side", sort=False):
            label = f"{model}, cap on the {side}" if sides > 1 else str(model)
            good = own[own["fate"] == GOOD].dropna(subset=[x, y])
            for part, face in parts(good, colour):
                axes.errorbar(
                    part[x],
                    part[y],
                    yerr=bars(part, y, y_low, y_high),
                    color=colour,
                    marker=marker,
                    markersize=4.5,
                    markerfacecolor=face,
                    linestyle=SIDE_STYLE[str(side)] if sides > 1 else "-",
                    linewidth=1.4,
                    capsize=2,
                    label=label,
                )
                label = "_" + label
            evicted = own[own["fate"] == PREEMPTED].dropna(subset=[x, y])
            if not evicted.empty:
                named = any(line.get_label() == "preempted" for line in axes.lines)
                axes.plot(
                    evicted[x],
                    evicted[y],
                    linestyle="none",
                    marker=marker,
                    markerfacecolor="white",
                    markeredgecolor=ALERT,
                    label=None if named else "preempted",
                )


def on_front(x: "pd.Series[float]", y: "pd.Series[float]") -> "pd.Series[bool]":
    """Return for each point whether no other one is as good in both x and y and better in one; more is better."""
    kept = [not (((x >= a) & (y >= b)) & ((x > a) | (y > b))).any() for a, b in zip(x, y, strict=True)]
    return pd.Series(kept, index=x.index, dtype=bool)


def parts(own: pd.DataFrame, colour: object) -> Iterator[tuple[pd.DataFrame, object]]:
    """Yield the points of one line that may be joined, with the fill of their markers.

    Points over the whole window are hollow, and not joined to those of the steady part, where a line has both: a step
    from one to the other would be that of the average. The column `averaging` says which they are.
    """
    whole = own["averaging"].eq(WINDOW).fillna(False).astype(bool)
    if whole.all() or not whole.any():
        yield own, colour
        return
    for _, part in own.groupby((whole != whole.shift()).cumsum(), sort=False):
        yield part, "white" if bool(whole[part.index[0]]) else colour


def bars(data: pd.DataFrame, name: str, low: str, high: str) -> "list[pd.Series[float]] | None":
    """Return the lengths of error bars from a column to its bounds, below and above; None where no bound is known."""
    if data[[low, high]].isna().all(axis=None):
        return None
    return [(data[name] - data[low]).clip(lower=0.0), (data[high] - data[name]).clip(lower=0.0)]
