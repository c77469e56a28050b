"""Output tokens a second of a GPU over those of a user: the frontier that operators choose from."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from memgap.declared.figures import FigureSpec
from memgap.figures.footer import write_provenance
from memgap.figures.marks import bars, on_front
from memgap.figures.per_user import GPU, USER, per_user
from memgap.figures.points import bars_note
from memgap.figures.style import GREY, legend_above, log2_axis, model_looks, new_figure, say_in_place
from memgap.tables.inputs import Inputs

FIGURE = FigureSpec(
    name="frontier",
    title="Tokens a second of a GPU over those of a user",
    reads=("sweep.points",),
    caption="""
x is what one user sees while tokens come, 1000 over the mean inter-token latency in ms; y the output tokens a second
of the server over its GPUs. A marker is a batch cap or a rate, its bars are 95 % intervals. The dashed line joins the
points that no other one beats in both: to choose a point off it is to give something away. Replicas are left out.
Without a GPU y is of the server.
""",
)


def draw(inputs: Inputs) -> tuple[Figure, pd.DataFrame]:
    """Return the figure and the plotted numbers (one row a model and load; means over repeats)."""
    data = per_user(inputs["sweep.points"])
    data["on_front"] = on_front(data[USER], data[GPU])
    figure, (axes,) = new_figure(1, height_in=3.9)
    for model, (colour, marker) in model_looks(list(dict.fromkeys(data["model"]))).items():
        own = data[data["model"] == model]
        look: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 4.5, "capsize": 2, "elinewidth": 1}
        widths = [bars(own, name, f"{name}_low", f"{name}_high") for name in (USER, GPU)]
        axes.errorbar(own[USER], own[GPU], xerr=widths[0], yerr=widths[1], label=str(model), **look)
        _name_ends(axes, own)
    line = data[data["on_front"]].sort_values(USER)
    axes.plot(line[USER], line[GPU], color=GREY, linestyle="--", linewidth=3, alpha=0.5, zorder=1, label="best of all")
    log2_axis(axes, list(data[USER]))
    axes.set_xlabel("Output tokens/s of a user, 1000 / mean ITL in ms")
    axes.set_ylabel("Output tokens/s per GPU")
    axes.set_ylim(bottom=0)
    if data.empty:
        say_in_place(axes, "no point of this sweep was measured")
    else:
        legend_above(figure, 5)
    write_provenance(figure, inputs["sweep.points"], bars=bars_note(data))
    return figure, data


def _name_ends(axes: Axes, own: pd.DataFrame) -> None:
    """Write the load beside the first and the last point of a line."""
    for place in dict.fromkeys((0, len(own) - 1)):
        row = own.iloc[place]
        axes.annotate(f"{row['asked']:g}", (row[USER], row[GPU]), xytext=(5, 3), textcoords="offset points", fontsize=6)
