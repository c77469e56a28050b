"""Output tokens a second within an SLO, by the lengths of prompts and outputs."""

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from memgap.declared.figures import FigureSpec
from memgap.figures.attainment import WANTED
from memgap.figures.footer import write_provenance
from memgap.figures.style import new_grid, say_in_place
from memgap.tables.fate import DRAWN, fate, replicated
from memgap.tables.inputs import Inputs

VALUE = "goodput_output_tok_s"
COLUMNS = ["model", "slo", "prompt_tokens", "output_tokens", "batch_cap", VALUE, "attained_fraction", "caps"]
FIGURE = FigureSpec(
    name="lengths",
    title="Tokens a second within an SLO by prompt and output length",
    reads=("sweep.points", "sweep.goodput"),
    caption="""
A cell is a workload, named by the mean lengths of its completed requests. Its number is the most output tokens a
second, of requests that kept all bounds of the first SLO in `slos`, among the batch caps or rates at which 90 % of all
requests kept them; below stands that cap. "none" was measured and no load kept the SLO; an empty cell was not
measured. One panel a model, one scale for all.
""",
)


def draw(inputs: Inputs) -> tuple[Figure, pd.DataFrame]:
    """Return the figure and the plotted numbers (one row a model and workload)."""
    data = feasible(inputs["sweep.points"], inputs["sweep.goodput"])
    models = list(dict.fromkeys(data["model"]))
    figure, panels = new_grid(len(models))
    most = data[VALUE].max()
    for axes, model in zip(panels, models, strict=False):
        _draw_cells(axes, data[data["model"] == model], most if most > 0 else 1.0)
        axes.set_title(model)
    for axes in panels:
        axes.set_xlabel("Output (tokens)", fontsize="small")
        axes.set_ylabel("Prompt (tokens)", fontsize="small")
    if not models:
        say_in_place(panels[0], "no point of this sweep kept its requests, or no SLO is in `slos`")
    slo = next(iter(data["slo"]), "")
    about = f"SLO {slo}; output tokens/s of requests within it, below: batch cap" if slo else ""
    write_provenance(figure, inputs["sweep.points"], bars=about)
    return figure, data


def feasible(points: pd.DataFrame, goodput: pd.DataFrame) -> pd.DataFrame:
    """Return one row a model and workload with the best load that keeps the first SLO; no number where none does."""
    drawn = points[fate(points).isin(DRAWN) & ~replicated(points) & (points["requests_completed"] > 0)]
    lengths = {
        f"{what}_tokens": (drawn[f"{what}_tokens"] / drawn["requests_completed"]) for what in ("prompt", "output")
    }
    named = drawn[["key", "dataset"]].assign(**lengths)
    first = goodput[goodput["slo"] == next(iter(goodput["slo"]), "")].merge(named, on="key")
    rows = []
    for (model, _), own in first.groupby(["model", "dataset"], sort=False):
        means = own.groupby("batch_cap")[[VALUE, "attained_fraction"]].mean()
        kept = means[means["attained_fraction"] >= WANTED]
        best = kept.loc[[kept[VALUE].idxmax()]] if len(kept) else None
        cap, value, share = (math.nan,) * 3 if best is None else (float(best.index[0]), *map(float, best.iloc[0]))
        head = (model, own["slo"].iloc[0], round(own["prompt_tokens"].mean()), round(own["output_tokens"].mean()))
        rows.append((*head, cap, value, share, len(means)))
    return pd.DataFrame(rows, columns=COLUMNS).sort_values(COLUMNS[:4], ignore_index=True)


def _draw_cells(axes: Axes, own: pd.DataFrame, most: float) -> None:
    rows, columns = sorted(set(own["prompt_tokens"])), sorted(set(own["output_tokens"]))
    cells = np.full((len(rows), len(columns)), np.nan)
    for _, cell in own.iterrows():
        place = rows.index(cell["prompt_tokens"]), columns.index(cell["output_tokens"])
        value, none = cell[VALUE], math.isnan(cell[VALUE])
        cells[place] = value
        text = "none" if none else f"{value:,.0f}\n{cell['batch_cap']:g}"
        dark = not none and value < 0.55 * most
        axes.text(place[1], place[0], text, ha="center", va="center", fontsize=7, color="white" if dark else "black")
    axes.imshow(cells, cmap="cividis", vmin=0, vmax=most, aspect="auto", origin="lower")
    axes.set_xticks(range(len(columns)), [f"{one:g}" for one in columns])
    axes.set_yticks(range(len(rows)), [f"{one:g}" for one in rows])
    axes.grid(False)
