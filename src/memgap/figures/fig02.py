"""Figure 2: throughput and inter-token latency over the average batch size.

x is the time-weighted mean of running requests inside the benchmark window. The published script averages over all
samples, the idle seconds before and after the run included, and so shows smaller batches than there were.
"""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from memgap.figures.inputs import FigureInputs
from memgap.figures.marks import draw_models
from memgap.figures.paper import overlay, read_paper
from memgap.figures.points import bars_note, per_cap
from memgap.figures.provenance import write_provenance
from memgap.figures.style import ALERT, log2_axis, new_figure, say_in_place
from memgap.tables.fate import GOOD, PREEMPTED

X, THROUGHPUT, LATENCY = "mean_running_reqs", "total_throughput_tok_s", "itl_mean_ms"
PAPER = {X: "mean_running_reqs_within_duration", THROUGHPUT: "total_token_throughput_tok_per_s", LATENCY: "mean_itl_ms"}


def draw(inputs: FigureInputs) -> tuple[Figure, pd.DataFrame]:
    """Return the figure and the plotted numbers (one row a model and cap; means over repeats)."""
    data = per_cap(inputs.table, [X, THROUGHPUT, LATENCY])
    figure, panels = new_figure(2)
    for axes, column, title in (
        (panels[0], THROUGHPUT, "Throughput, prompt + output (tok/s)"),
        (panels[1], LATENCY, "Mean inter-token latency (ms)"),
    ):
        if inputs.paper_reference is not None:
            paper = read_paper(inputs.paper_reference, "fig02", [*PAPER.values(), "plotted", "model"])
            overlay(axes, paper[paper["plotted"]], PAPER[X], PAPER[column])
        draw_models(axes, data, X, column, f"{column}_low", f"{column}_high")
        _mark_memory_limit(axes, data, column)
        log2_axis(axes, list(data[X].dropna()))
        axes.set_xlabel("Average batch size (running requests)")
        axes.set_ylabel(title)
        axes.set_ylim(bottom=0)
        if data.empty:
            say_in_place(axes, "no point of this sweep was measured")
    if not data.empty:
        panels[0].legend(fontsize="x-small")
    write_provenance(figure, inputs.table, bars=bars_note(data[data["fate"] == GOOD]))
    return figure, data


def _mark_memory_limit(axes: Axes, data: pd.DataFrame, column: str) -> None:
    """Mark the last good point of a model whose next cap is preempted: there the KV cache is full."""
    for _, own in data.groupby(["model", "cap_side"], sort=False):
        good, evicted = own[own["fate"] == GOOD], own[own["fate"] == PREEMPTED]
        if len(good) and len(evicted) and evicted["batch_cap"].max() > good["batch_cap"].max():
            last = good.nlargest(1, "batch_cap")
            axes.plot(last[X], last[column], marker="x", color=ALERT, markersize=9, linestyle="none")
