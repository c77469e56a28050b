"""Static batches against continuous batching: throughput, time for the same requests, and latency, over the batch."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from memgap.figures.comparison_looks import batch_axis, drawn, series_looks, with_series, write_small_print
from memgap.figures.spec import FigureSpec
from memgap.figures.style import new_figure, say_in_place
from memgap.tables.inputs import Inputs

THROUGHPUT, COMPUTED = "output_throughput_tok_s", "computed_throughput_tok_s"
PANELS = (
    (THROUGHPUT, "Output throughput (tok/s)"),
    ("duration_s", "Time for the same requests (s)"),
    ("e2e_mean_ms", "Mean latency of a request (ms)"),
)
FIGURE = FigureSpec(
    name="static_batching",
    title="Static against continuous batching",
    reads=("comparison.engines", "comparison.kv", "comparison.memory"),
    target="hf_vs_vllm",
    category="Engines compared",
    caption="""
Output tokens per second that were asked for, time for the same requests, and mean latency, on several engines over
the batch. Dotted: with the tokens that a static batch makes for requests that have ended already. See
docs/hf_vs_vllm.md.
""",
)


def draw(inputs: Inputs) -> tuple[Figure, pd.DataFrame]:
    """Return the figure and the plotted numbers: one row a series and batch, means over repeats."""
    data = figure_data(inputs["comparison.engines"])
    looks = series_looks(list(dict.fromkeys(data["series"])))
    figure, panels = new_figure(len(PANELS), width_in=9.0, height_in=3.6)
    for axes, (column, title) in zip(panels, PANELS, strict=True):
        for name, own in data.groupby("series", sort=False):
            colour, marker = looks[str(name)]
            axes.plot(own["batch_cap"], own[column], color=colour, marker=marker, label=str(name))
            if column == THROUGHPUT and (own[COMPUTED] > own[THROUGHPUT] * 1.001).any():
                axes.plot(own["batch_cap"], own[COMPUTED], color=colour, linestyle=":")
        _finish(axes, data, title)
    if not data.empty:
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=6)
    note = "continuous batching: so many requests in flight; static: so many in a batch, all wait for the longest; "
    note += "dotted: with the tokens that nobody asked for"
    write_small_print(figure, inputs["comparison.engines"], note)
    return figure, data


def figure_data(engines: pd.DataFrame) -> pd.DataFrame:
    """Return the means over repeats of the drawn columns, in the table's order of engines and by batch."""
    columns = [column for column, _ in PANELS]
    known = with_series(drawn(engines))
    known = known.assign(**{COMPUTED: known["computed_output_tokens"] / known["duration_s"]})
    means = known.groupby(["series", "batch_cap"], sort=False)[[*columns, COMPUTED, "useful_fraction"]].mean()
    order = {name: place for place, name in enumerate(dict.fromkeys(known["series"]))}
    found = means.reset_index()
    found["place"] = found["series"].map(order)
    return found.sort_values(["place", "batch_cap"], ignore_index=True).drop(columns="place")


def _finish(axes: Axes, data: pd.DataFrame, title: str) -> None:
    batch_axis(axes, data["batch_cap"])
    axes.set_ylabel(title)
    axes.set_ylim(bottom=0)
    if data.empty:
        say_in_place(axes, "no point of this comparison was measured")
