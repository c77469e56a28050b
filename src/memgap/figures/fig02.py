"""Figure 2: throughput and inter-token latency over the average batch size."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from memgap.declared.figures import FigureSpec
from memgap.figures.footer import write_provenance
from memgap.figures.marks import draw_models
from memgap.figures.paper import overlay, read_paper
from memgap.figures.points import bars_note, per_cap
from memgap.figures.style import ALERT, legend_above, log2_axis, new_figure, say_in_place
from memgap.tables.fate import GOOD, PREEMPTED
from memgap.tables.inputs import Inputs

X, THROUGHPUT, LATENCY = "mean_running_reqs", "total_throughput_tok_s", "itl_mean_ms"
PAPER = {X: "mean_running_reqs_within_duration", THROUGHPUT: "total_token_throughput_tok_per_s", LATENCY: "mean_itl_ms"}
FIGURE = FigureSpec(
    name="fig02",
    title="Figure 2: throughput and latency over the average batch",
    reads=("sweep.points",),
    paper=True,
    caption="""
x is the average batch: the time-weighted mean of running requests. Left, throughput of prompt and output tokens;
right, the mean inter-token latency (ITL). All three are of the steady part of a run (docs/measurement.md) where it has
one and `averaging: window` does not ask for the whole window, between the first send and the last reply; the line
under the figure says which. Beside the paper's numbers they are of the whole window.
Hollow markers, which are not joined to the others, are of the whole window for want of a steady part: too low.

Look for the batch where the left curve leaves its steep part. Up to there a larger batch is almost free; beyond it
each step reads more KV cache than it gains, the right curve climbs, and the left one flattens: the memory wall.
Markers are means over repeats, bars their 95 % intervals; the line under the figure says of which kind. Open,
red-edged markers are points with preemptions: requests were evicted from a full KV cache and computed again. A red
cross marks the last cap before that.

Corrected against the paper's published script: that averages running requests over all samples, the idle seconds
before and after the run included, and so shows smaller batches than there were.
""",
)


def draw(inputs: Inputs) -> tuple[Figure, pd.DataFrame]:
    """Return the figure and the plotted numbers (one row a model and cap; means over repeats)."""
    data = per_cap(inputs["sweep.points"], [X, THROUGHPUT, LATENCY])
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
    legend_above(figure, 6)
    write_provenance(figure, inputs["sweep.points"], bars=bars_note(data[data["fate"] == GOOD]))
    return figure, data


def _mark_memory_limit(axes: Axes, data: pd.DataFrame, column: str) -> None:
    """Mark the last good point of a model whose next cap is preempted: there the KV cache is full."""
    for _, own in data.groupby(["model", "cap_side"], sort=False):
        good, evicted = own[own["fate"] == GOOD], own[own["fate"] == PREEMPTED]
        if len(good) and len(evicted) and evicted["batch_cap"].max() > good["batch_cap"].max():
            last = good.nlargest(1, "batch_cap")
            axes.plot(last[X], last[column], marker="x", color=ALERT, markersize=9, linestyle="none")
