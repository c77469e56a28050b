"""Figure 3: throughput over the KV cache that it takes."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from memgap.declared.figures import FigureSpec
from memgap.figures.footer import write_provenance
from memgap.figures.marks import draw_models
from memgap.figures.paper import overlay, read_paper
from memgap.figures.points import bars_note, per_cap
from memgap.figures.style import new_figure, say_in_place
from memgap.tables.fate import GOOD
from memgap.tables.inputs import Inputs

USAGE, PERCENT, THROUGHPUT = "kv_cache_usage_max_fraction", "kv_cache_usage_max_percent", "total_throughput_tok_s"
PAPER_X, PAPER_Y = "kv_cache_max_usage_pct", "total_token_throughput_tok_per_s"
FIGURE = FigureSpec(
    name="fig03",
    title="Figure 3: throughput over KV-cache usage",
    reads=("sweep.points",),
    paper=True,
    caption="""
x is the largest share of the KV-cache pool in use during the run. A curve that is flat on its right says that this
part of the pool holds requests that add next to nothing; the memory could serve a second replica of the model
instead.
""",
)


def draw(inputs: Inputs) -> tuple[Figure, pd.DataFrame]:
    """Return the figure and the plotted numbers (one row a model and cap; means over repeats)."""
    table = inputs["sweep.points"]
    data = per_cap(table.assign(**{PERCENT: 100 * table[USAGE]}), [PERCENT, THROUGHPUT])
    figure, (axes,) = new_figure(1, width_in=5.4, height_in=3.4)
    if inputs.paper_reference is not None:
        paper = read_paper(inputs.paper_reference, "fig03", [PAPER_X, PAPER_Y, "plotted", "model"])
        overlay(axes, paper[paper["plotted"]], PAPER_X, PAPER_Y)
    draw_models(axes, data, PERCENT, THROUGHPUT, f"{THROUGHPUT}_low", f"{THROUGHPUT}_high")
    _name_caps(axes, data)
    axes.set_xlabel("Largest KV-cache usage (% of the pool)")
    axes.set_ylabel("Throughput, prompt + output (tok/s)")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    if data.empty:
        say_in_place(axes, "no point of this sweep was measured")
    else:
        figure.legend(fontsize="x-small", loc="outside right center")
    write_provenance(figure, table, bars=bars_note(data[data["fate"] == GOOD]))
    return figure, data


def _name_caps(axes: Axes, data: pd.DataFrame) -> None:
    """Write the batch cap beside each point where only one model is drawn."""
    if data["model"].nunique() != 1 or data["cap_side"].nunique() != 1:
        return
    for _, row in data.dropna(subset=[PERCENT, THROUGHPUT]).iterrows():
        axes.annotate(
            str(row["batch_cap"]),
            (row[PERCENT], row[THROUGHPUT]),
            xytext=(5, -8),
            textcoords="offset points",
            fontsize="x-small",
        )
