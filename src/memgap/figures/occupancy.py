"""Requests that run and wait over time, one panel a point: how full a batch is, whoever makes it."""

from typing import Literal

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from memgap.declared.figures import FigureSpec
from memgap.figures.over_time import panels, write_small_print
from memgap.figures.style import GREY, new_grid, palette, say_in_place
from memgap.tables.inputs import Inputs
from memgap.tables.occupancy import STEPS

FIGURE = FigureSpec(
    name="occupancy",
    title="Requests that run and wait over time",
    reads=("sweep.points", "sweep.occupancy"),
    caption="""
The area is the requests that run, the dashed line the batch cap, the thin line (right axis) the requests that wait. Of
a server they are what its metrics say; of static batches those of the batch that are not at their own end yet run, and
those of the batches to come wait. The number in a title is the mean of the area by the cap, over the time that is
drawn.
""",
)


def draw(inputs: Inputs) -> tuple[Figure, pd.DataFrame]:
    """Return the figure and the samples and steps in it."""
    points, table = inputs["sweep.points"], inputs["sweep.occupancy"]
    titles, note = panels(points)
    counts, titles = bool(titles), {key: title for key, title in titles.items() if key in set(table["key"])}
    data = table[table["key"].isin(titles)]
    figure, axes_of = new_grid(len(titles))
    if not titles:
        say_in_place(
            axes_of[0], f"no point of this sweep {'has samples of its engine, or steps' if counts else 'counts'}"
        )
    for axes, (key, title) in zip(axes_of, titles.items(), strict=False):
        own = data[data["key"] == key].sort_values("time_s", kind="stable")
        share = draw_occupancy(axes, own)
        axes.set_title(f"{title}: {share:.2f} of the cap", fontsize="small")
    write_small_print(figure, points, [note])
    return figure, data.reset_index(drop=True)


def draw_occupancy(axes: Axes, own: pd.DataFrame) -> float:
    """Draw one point's rows of the table of occupancy; returns the mean of what runs by the cap."""
    # a sample holds until the next one, a step's number until the step's end
    step: Literal["pre", "post"] = "pre" if (own["seen_by"] == STEPS).all() else "post"
    colour, cap = palette(1)[0], float(own["batch_cap"].iloc[0])
    times_s, running = own["time_s"].to_numpy(), own["running_reqs"].to_numpy()
    axes.fill_between(times_s, running, step=step, color=colour, alpha=0.6, linewidth=0)
    axes.axhline(cap, color="black", linestyle="--", linewidth=0.8)
    axes.set_ylim(0, max(cap, running.max()) * 1.1)
    axes.set_xlabel("Time since the window's start (s)")
    axes.set_ylabel("Requests that run")
    if (waiting := own["waiting_reqs"].fillna(0)).max() > 0:
        beside = axes.twinx()
        beside.plot(times_s, waiting, drawstyle=f"steps-{step}", color=GREY, linewidth=1)
        beside.set_ylim(bottom=0)
        beside.set_ylabel("Requests that wait", color=GREY)
        beside.grid(visible=False)
    spans = pd.Series(times_s).diff().to_numpy()
    held = running[1:] if step == "pre" else running[:-1]
    whole = spans[1:].sum()
    return float((held * spans[1:]).sum() / whole / cap) if len(own) > 1 and whole > 0 else float(running.mean() / cap)
