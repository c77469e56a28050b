"""How a model's points are drawn on an axis."""

import pandas as pd
from matplotlib.axes import Axes

from memgap.figures.style import ALERT, model_looks
from memgap.tables.fate import GOOD, PREEMPTED

SIDE_STYLE = {"client": "-", "server": "--"}


def draw_models(axes: Axes, data: pd.DataFrame, x: str, y: str, y_low: str, y_high: str) -> None:
    """Draw one line with markers for each model (and cap side), bars over the 95 % intervals.

    Preempted points are open red-edged markers without a line.
    """
    sides = data["cap_side"].nunique()
    for model, (colour, marker) in model_looks(list(dict.fromkeys(data["model"]))).items():
        for side, own in data[data["model"] == model].groupby("cap_side", sort=False):
            label = f"{model}, cap on the {side}" if sides > 1 else str(model)
            good = own[own["fate"] == GOOD].dropna(subset=[x, y])
            axes.errorbar(
                good[x],
                good[y],
                yerr=bars(good, y, y_low, y_high),
                color=colour,
                marker=marker,
                markersize=4.5,
                linestyle=SIDE_STYLE[str(side)] if sides > 1 else "-",
                linewidth=1.4,
                capsize=2,
                label=label,
            )
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


def bars(data: pd.DataFrame, name: str, low: str, high: str) -> "list[pd.Series[float]] | None":
    """Return the lengths of error bars from a column to its bounds, below and above; None where no bound is known."""
    if data[[low, high]].isna().all(axis=None):
        return None
    return [(data[name] - data[low]).clip(lower=0.0), (data[high] - data[name]).clip(lower=0.0)]
