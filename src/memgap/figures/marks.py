"""How a model's points are drawn on an axis."""

import pandas as pd
from matplotlib.axes import Axes

from memgap.collect.fate import GOOD, PREEMPTED
from memgap.figures.style import ALERT, model_looks

SIDE_STYLE = {"client": "-", "server": "--"}


def draw_models(axes: Axes, data: pd.DataFrame, x: str, y: str, y_low: str, y_high: str) -> None:
    """Draw one line with markers for each model (and cap side), bars over the 95 % interval of repeats.

    Preempted points are open red-edged markers without a line.
    """
    sides = data["cap_side"].nunique()
    for model, (colour, marker) in model_looks(list(dict.fromkeys(data["model"]))).items():
        for side, own in data[data["model"] == model].groupby("cap_side", sort=False):
            label = f"{model}, cap on the {side}" if sides > 1 else str(model)
            good = own[own["fate"] == GOOD].dropna(subset=[x, y])
            spread = [good[y] - good[y_low], good[y_high] - good[y]]
            axes.errorbar(
                good[x],
                good[y],
                yerr=spread if (good["repeats"] > 1).any() else None,
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
