"""The gap before each token over time, one panel a point, with the moments at which long prompts were sent."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from memgap.declared.figures import FigureSpec
from memgap.figures.over_time import panels, write_small_print
from memgap.figures.style import GREY, new_grid, palette, say_in_place
from memgap.tables.gaps import SENT, TOKEN
from memgap.tables.inputs import Inputs

SPREAD = 20.0
"""The y axis is logarithmic where the largest gap is so many times the median."""
FIGURE = FigureSpec(
    name="itl_series",
    title="Gaps between tokens over time",
    reads=("sweep.points", "sweep.gaps"),
    caption="""
Every token's gap since the one before it, at the moment it came, one panel a point. Of a mixture the marks above are
the requests of the part with the longest prompts, at the moment they were sent, and their own tokens have a colour of
their own: where a prompt holds up the tokens of others, gaps stand out behind a mark. Of many gaps the largest and an
even choice of the others are drawn.
""",
)


def draw(inputs: Inputs) -> tuple[Figure, pd.DataFrame]:
    """Return the figure and the gaps and sends in it."""
    points, gaps = inputs["sweep.points"], inputs["sweep.gaps"]
    titles, note = panels(points)
    counts, titles = bool(titles), {key: title for key, title in titles.items() if key in set(gaps["key"])}
    data = gaps[gaps["key"].isin(titles)]
    figure, axes_of = new_grid(len(titles))
    if not titles:
        say_in_place(axes_of[0], f"no point of this sweep {'kept its single tokens' if counts else 'counts'}")
    tokens = data[data["event"] == TOKEN]
    for axes, (key, title) in zip(axes_of, titles.items(), strict=False):
        draw_gaps(axes, data[data["key"] == key])
        axes.set_title(title, fontsize="small", pad=9)
        scale_gaps(axes, tokens["gap_ms"])
    if titles:
        handles = {label: one for axes in axes_of for one, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        figure.legend(
            handles.values(), handles.keys(), loc="outside upper center", ncols=3, fontsize=6, markerscale=1.5
        )
    every = data["kept_every"].max()
    thinned = f"the largest gaps of each point and of the others at least one in {every:.0f}" if every > 1 else ""
    write_small_print(figure, points, [thinned, note])
    return figure, data.reset_index(drop=True)


def draw_gaps(axes: Axes, own: pd.DataFrame) -> None:
    """Draw one point's rows of the table of gaps."""
    tokens, sends = own[own["event"] == TOKEN], own[own["event"] == SENT]
    prompts = sends.groupby("group")["prompt_tokens"].mean()
    longest = prompts.idxmax() if len(prompts) > 1 else None
    of_long = tokens["group"] == longest
    short, long = palette(2)
    others = "a token" if longest is None else "a token of the others"
    for rows, colour, label in ((tokens[~of_long], short, others), (tokens[of_long], long, "of the longest prompts")):
        if len(rows):
            axes.scatter(
                rows["time_s"], rows["gap_ms"], s=2.5, color=colour, linewidths=0, rasterized=True, label=label
            )
    if longest is not None:
        sent = sends[sends["group"] == longest]["time_s"]
        axes.plot(
            sent,
            [1.02] * len(sent),
            linestyle="none",
            marker="v",
            markersize=3,
            color=GREY,
            transform=axes.get_xaxis_transform(),
            clip_on=False,
            label="a long prompt is sent",
        )
    axes.set_xlabel("Time since the window's start (s)")
    axes.set_ylabel("Gap before a token (ms)")


def scale_gaps(axes: Axes, gaps_ms: "pd.Series[float]") -> None:
    """Give panels of the same gaps the same y axis."""
    positive = gaps_ms[gaps_ms > 0]
    if positive.empty:
        return
    if positive.max() > SPREAD * positive.median():
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_ylim(float(positive.quantile(0.01)) / 2, float(positive.max()) * 1.5)
    else:
        axes.set_ylim(0, float(positive.max()) * 1.08)
