"""Figure 4: seconds of prefill and of decode over the batch, and how much longer a larger batch takes."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from memgap.figures.offline_notes import say_empty, write_notes
from memgap.figures.offline_points import NONE_MEASURED, batch_label, main_points
from memgap.figures.paper import LABEL, read_paper
from memgap.figures.spec import FigureSpec
from memgap.figures.style import ALERT, GREY, new_grid, palette
from memgap.tables.inputs import Inputs
from memgap.tables.offline_study import OfflineTables, offline_of

COLUMNS = ["model", "batch", "prompt_tokens", "output_tokens", "repeats", "prefill_s", "decode_s", "slowdown_ratio"]
PAPER = ["model", "batch_size", "prefill_time_s", "decode_time_s", "global_slowdown_x", "plotted"]

HEADROOM = 1.2
"""Room for the legend above the bars."""
FIGURE = FigureSpec(
    name="fig04",
    title="Figure 4: prefill and decode over the batch",
    reads=("study.offline",),
    paper=True,
    caption="""
Bars are seconds, the line how much longer a batch takes than the smallest one. A batch twice as large in less than
twice the time is a gain. Corrected: the phase of each step is the scheduler's own; the published logs count the first
decode step as prefill, and their last decode step is empty.
""",
)


def draw(inputs: Inputs) -> tuple[Figure, pd.DataFrame]:
    """Return the figure and the plotted numbers (one row a model and batch; means over repeats)."""
    data = plotted(offline_of(inputs))
    models = list(dict.fromkeys(data["model"]))
    figure, panels = new_grid(len(models))
    for axes, model in zip(panels, models, strict=False):
        _draw_model(axes, data[data["model"] == model].reset_index(drop=True), inputs)
        axes.set_title(model)
    for axes in panels:
        axes.set_xlabel("Batch size (requests)", fontsize="small")
        axes.set_ylabel("Time (s)", fontsize="small")
    if data.empty:
        say_empty(panels[0], NONE_MEASURED)
    lengths = data[["prompt_tokens", "output_tokens"]].drop_duplicates()
    said = "; ".join(f"prompts of {a:g}, outputs of {b:g} tokens" for a, b in lengths.itertuples(index=False))
    write_notes(figure, inputs["study.offline"], [said])
    return figure, data


def plotted(tables: OfflineTables) -> pd.DataFrame:
    """Return one row a model and batch with the columns of `COLUMNS`; times are means over unprofiled repeats."""
    points = main_points(tables).dropna(subset=["prefill_s", "decode_s"])
    rows = []
    for (model, batch), own in points.groupby(["model", "batch"], sort=False):
        lengths = own[["prompt_tokens", "output_tokens"]].iloc[0].to_dict()
        means = own[["prefill_s", "decode_s"]].mean().to_dict()
        rows.append({"model": model, "batch": batch, "repeats": len(own), **lengths, **means})
    data = pd.DataFrame(rows, columns=COLUMNS[:-1])
    places = {model: place for place, model in enumerate(dict.fromkeys(data["model"]))}
    data = data.assign(place=data["model"].map(places)).sort_values(["place", "batch"], ignore_index=True)
    total = data["prefill_s"] + data["decode_s"]
    first = total.groupby(data["model"], sort=False).transform("first")
    return data.assign(slowdown_ratio=total / first)[COLUMNS]


def _draw_model(axes: Axes, own: pd.DataFrame, inputs: Inputs) -> None:
    colours = palette(2)
    places = list(range(len(own)))
    axes.bar(places, own["prefill_s"], color=colours[1], width=0.7, label="prefill", linewidth=0)
    axes.bar(places, own["decode_s"], bottom=own["prefill_s"], color=colours[0], width=0.7, label="decode", linewidth=0)
    axes.set_xticks(places, [batch_label(batch) for batch in own["batch"]], fontsize="x-small")
    right = axes.twinx()
    right.grid(visible=False)
    right.plot(places, own["slowdown_ratio"], color=ALERT, marker="o", markersize=3, label="slowdown (right)")
    if inputs.paper_reference is not None:
        paper = read_paper(inputs.paper_reference, "fig04", PAPER)
        shown = paper[(paper["model"] == own["model"].iloc[0]) & paper["plotted"]].set_index("batch_size")
        matched = [(place, batch) for place, batch in enumerate(own["batch"]) if batch in shown.index]
        if matched:
            xs, batches = [place for place, _ in matched], [batch for _, batch in matched]
            axes.plot(
                xs,
                shown.loc[batches, "prefill_time_s"] + shown.loc[batches, "decode_time_s"],
                color=GREY,
                marker="_",
                markersize=9,
                linestyle="none",
                label=f"{LABEL}, both",
            )
            right.plot(xs, shown.loc[batches, "global_slowdown_x"], color=GREY, linestyle="--", linewidth=1)
    right.set_ylim(0, HEADROOM * right.get_ylim()[1])
    axes.set_ylim(0, HEADROOM * axes.get_ylim()[1])
    right.set_ylabel(f"Slowdown over batch {batch_label(own['batch'].iloc[0])}", fontsize="x-small")
    handles, labels = (
        left + over for left, over in zip(*(one.get_legend_handles_labels() for one in (axes, right)), strict=True)
    )
    axes.legend(handles, labels, fontsize=5.5, loc="upper left")
