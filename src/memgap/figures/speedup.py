"""Speed-up of a tuning: a panel a race, the gain of each configuration over the reference."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from memgap.figures.spec import FigureSpec
from memgap.figures.style import ALERT, apply_style, palette
from memgap.figures.tuning_looks import WIDTH_IN, short, write_tuning_footer
from memgap.tables.inputs import Inputs

BAR_IN, PANEL_IN = 0.26, 0.75
LABEL_CHARACTERS = 40
COLOURS: Mapping[str, int] = {"winner": 2, "running": 0, "reference": 7, "beaten": 7, "screened": 7, "equal": 7}
"""State -> colour of the palette."""
WORDS: Mapping[str, str] = {
    "winner": "winner",
    "running": "not told apart",
    "beaten": "left early",
}
FIGURE = FigureSpec(
    name="speedup",
    title="Speed-up of a tuning",
    reads=("tuning.results",),
    file="tuning/{group}.speedup",
    of="tuning",
    category="Tuning",
    target="tuning",
    caption="""
The gain of each configuration over the race's reference, with intervals that hold for all comparisons and looks at
once; the number of blocks stands beside the name. See docs/tuning.md.
""",
)


def draw(inputs: Inputs) -> tuple[Figure, pd.DataFrame]:
    """Draw a panel a race: the gain of each configuration over the reference, with its simultaneous interval."""
    table = inputs["tuning.results"]
    data = table[
        ["model", "prompt_template_name", "tier", "label", "state", "is_reference", "blocks", "comment"]
    ].copy()
    for column in ("objective_gain", "objective_gain_low", "objective_gain_high"):
        data[f"{column}_percent"] = 100 * table[column].astype(float)
    apply_style()
    panels = list(data.groupby(["model", "prompt_template_name", "tier"], sort=False))
    heights = [max(2, int((one["state"] != "refused").sum())) * BAR_IN + PANEL_IN for _, one in panels]
    figure = Figure(figsize=(WIDTH_IN, sum(heights) + 0.9), layout="constrained")
    grid = figure.add_gridspec(len(panels), 1, height_ratios=heights)
    several = data["prompt_template_name"].nunique() > 1
    for place, ((model, dataset, tier), own) in enumerate(panels):
        axes = figure.add_subplot(grid[place])
        _bars(axes, own)
        axes.set_title(f"{model}{f', {dataset}' if several else ''}: {tier}")
    figure.axes[-1].set_xlabel("Gain over the reference of the race (%); lines are simultaneous intervals")
    handles = [
        Line2D([], [], color=palette(8)[COLOURS[state]], linewidth=5, label=text) for state, text in WORDS.items()
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=3, fontsize="x-small")
    write_tuning_footer(figure, table)
    return figure, data


def _bars(axes: Axes, own: pd.DataFrame) -> None:
    own = own[own["state"] != "refused"]
    order = own.assign(gain=own["objective_gain_percent"].fillna(-np.inf).where(~own["is_reference"].astype(bool), 0.0))
    order = order.sort_values("gain", kind="stable").reset_index(drop=True)
    low, high = order["objective_gain_low_percent"], order["objective_gain_high_percent"]
    shown = order["objective_gain_percent"]
    least = min([0.0, *shown.dropna(), *low.dropna().clip(lower=shown.min() - 20 if shown.notna().any() else None)])
    most = max([1.0, *shown.dropna(), *high.dropna().clip(upper=(shown.max() if shown.notna().any() else 0) + 20)])
    for place, (_, row) in enumerate(order.iterrows()):
        gain, colour = row["objective_gain_percent"], palette(8)[COLOURS.get(row["state"], 7)]
        if row["is_reference"]:
            axes.plot([0], [place], marker="|", color="black", markersize=9)
        elif pd.isna(gain):
            axes.text(
                0, place, f" {row['state']}: {short(str(row['comment']), 90)}", va="center", fontsize=6, color=ALERT
            )
        else:
            axes.barh(place, gain, height=0.62, color=colour)
            if pd.notna(row["objective_gain_low_percent"]):
                axes.plot(
                    [row["objective_gain_low_percent"], row["objective_gain_high_percent"]],
                    [place, place],
                    color="black",
                    linewidth=1,
                )
    axes.set_xlim(least * 1.08, most * 1.08)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(order)))
    axes.set_yticklabels([_tick(row) for _, row in order.iterrows()], fontsize="x-small")
    axes.set_ylim(-0.6, len(order) - 0.4)
    axes.grid(axis="y", visible=False)


def _tick(row: "pd.Series[Any]") -> str:
    return f"{short(str(row['label']), LABEL_CHARACTERS)}  ({int(row['blocks'])})"
