"""Figure 12: throughput over KV-cache usage for several output lengths, one panel a model.

x is the largest share of the pool in use inside the window. Preempted points are open markers and no part of a line;
the published script keeps them among the others, and leaves failed runs out in silence.
"""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from memgap.collect.fate import DRAWN, GOOD, fate, replicated
from memgap.figures.inputs import FigureInputs
from memgap.figures.paper import overlay, read_paper
from memgap.figures.provenance import write_provenance
from memgap.figures.style import ALERT, MARKERS, new_grid, palette, say_in_place

USAGE, PERCENT, THROUGHPUT = "kv_cache_usage_max_fraction", "kv_cache_usage_max_percent", "total_throughput_tok_s"
COLUMNS = ["model", "output_tokens_mean", "batch_cap", PERCENT, THROUGHPUT, "fate"]
PAPER_X, PAPER_Y = "kv_cache_max_usage_pct", "total_token_throughput_tok_per_s"


def draw(inputs: FigureInputs) -> tuple[Figure, pd.DataFrame]:
    """Return the figure and the plotted numbers (one row a model, output length and cap; means over repeats)."""
    data = plotted(inputs.table)
    models = list(dict.fromkeys(inputs.table["model"].dropna()))
    figure, panels = new_grid(len(models))
    lengths = sorted(set(data["output_tokens_mean"]))
    colours = palette(len(lengths))
    for axes, model in zip(panels, models, strict=False):
        own = data[data["model"] == model]
        if inputs.paper_reference is not None:
            _overlay_paper(axes, inputs, model)
        for place, length in enumerate(lengths):
            _draw_length(axes, own[own["output_tokens_mean"] == length], colours[place], MARKERS[place], length)
        axes.set_title(model)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        if own.empty:
            say_in_place(axes, "no point of this sweep was measured")
        else:
            axes.legend(fontsize="x-small", title="output tokens", title_fontsize="x-small")
    figure.supylabel("Throughput, prompt + output (tok/s)", fontsize="medium")
    for axes in panels:
        axes.set_xlabel("Largest KV-cache usage (% of the pool)")
    write_provenance(figure, inputs.table)
    return figure, data


def plotted(table: pd.DataFrame) -> pd.DataFrame:
    """Return the drawn points; the output length is the mean of the completed requests, in whole tokens."""
    kept = table[fate(table).isin(DRAWN) & ~replicated(table) & (table["requests_completed"] > 0)]
    kept = kept.assign(
        fate=fate(kept),
        output_tokens_mean=(kept["output_tokens"] / kept["requests_completed"]).round().astype(float),
        **{PERCENT: 100 * kept[USAGE]},
    )
    grouped = kept.groupby(["model", "output_tokens_mean", "batch_cap", "fate"], sort=False, as_index=False)
    means = grouped[[PERCENT, THROUGHPUT]].mean()
    return means[COLUMNS].sort_values(["model", "output_tokens_mean", "batch_cap"], ignore_index=True)


def _draw_length(axes: Axes, own: pd.DataFrame, colour: object, marker: str, length: float) -> None:
    good, evicted = own[own["fate"] == GOOD], own[own["fate"] != GOOD]
    if not good.empty:
        axes.plot(good[PERCENT], good[THROUGHPUT], color=colour, marker=marker, markersize=4, label=f"{length:g}")
    if not evicted.empty:
        axes.plot(
            evicted[PERCENT],
            evicted[THROUGHPUT],
            linestyle="none",
            marker=marker,
            markerfacecolor="white",
            markeredgecolor=ALERT,
            label=f"{length:g}, preempted",
        )


def _overlay_paper(axes: Axes, inputs: FigureInputs, model: str) -> None:
    assert inputs.paper_reference is not None
    paper = read_paper(inputs.paper_reference, "fig12", ["model", "output_len_tokens", PAPER_X, PAPER_Y, "plotted"])
    own = paper[(paper["model"] == model) & paper["plotted"]]
    overlay(axes, own.assign(model=own["output_len_tokens"]), PAPER_X, PAPER_Y)
