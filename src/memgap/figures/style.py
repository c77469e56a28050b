"""One look for all figures: legible in one or two columns of a paper, safe for colour-blind readers."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import matplotlib as mpl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
PALETTE_COLOURS = 10
"""So many colours the colour-blind palette has."""
LEGEND_CHARACTERS_PER_IN = 15
GREY = "#7f7f7f"
ALERT = "#b2182b"


def apply_style() -> None:
    """Set fonts, grid and vector text; call it before a figure is made."""
    mpl.use("Agg")
    sns.set_theme(context="paper", style="whitegrid", palette="colorblind", font_scale=0.9)
    mpl.rcParams.update(
        {
            "pdf.fonttype": 42,
            "svg.fonttype": "none",
            "axes.titlesize": "medium",
            "axes.xmargin": 0.08,
            "legend.frameon": False,
        }
    )


def model_looks(models: Sequence[str]) -> Mapping[str, tuple[tuple[float, float, float], str]]:
    """Return a colour and a marker for each model."""
    colours = sns.color_palette("colorblind", max(1, len(models)))
    return {model: (colours[i], MARKERS[i % len(MARKERS)]) for i, model in enumerate(models)}


def palette(number: int) -> list[tuple[float, float, float]]:
    """Return that many colours, each different: of more than the colour-blind palette has, shades of one scale."""
    name = "colorblind" if number <= PALETTE_COLOURS else "viridis"
    colours: list[tuple[float, float, float]] = sns.color_palette(name, max(1, number))
    return colours


def new_rows(number: int, width_in: float = 7.2) -> tuple[Figure, list[Axes]]:
    """Return a figure with that many flat panels below one another, with one x axis."""
    apply_style()
    figure = Figure(figsize=(width_in, 0.9 + 0.85 * number), layout="constrained")
    first = figure.add_subplot(number, 1, 1)
    return figure, [first, *(figure.add_subplot(number, 1, place + 1) for place in range(1, number))]


def new_grid(number: int) -> tuple[Figure, list[Axes]]:
    """Return a figure with that many panels, two in a row."""
    apply_style()
    columns = 1 if number <= 1 else 2
    rows = max(1, -(-number // columns))
    figure = Figure(figsize=(3.6 * columns + (1.2 if columns == 1 else 0.0), 0.5 + 2.5 * rows), layout="constrained")
    return figure, [figure.add_subplot(rows, columns, place + 1) for place in range(max(number, 1))]


def new_figure(columns: int, width_in: float = 7.2, height_in: float = 3.3) -> tuple[Figure, list[Axes]]:
    """Return a figure with that many panels side by side."""
    apply_style()
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    return figure, [figure.add_subplot(1, columns, i + 1) for i in range(columns)]


def log2_axis(axes: Axes, values: Sequence[float]) -> None:
    """Make x logarithmic to base 2 with plain numbers, where the values span more than a factor of 8."""
    positive = [value for value in values if value > 0]
    if positive and max(positive) / min(positive) > 8:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def log_axis(axes: Axes, which: Literal["x", "y"]) -> None:
    """Make an axis logarithmic with plain numbers."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axes.set(**{f"{which}scale": "log"})
    low, high = axis.get_view_interval()
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    axis.set_major_formatter(plain)
    if high / low < 30:
        axis.set_minor_locator(LogLocator(subs=(2.0, 5.0)))
    axis.set_minor_formatter(plain if high / low < 30 else NullFormatter())


def legend_above(figure: Figure, columns: int = 4, first: Sequence[str] = ()) -> None:
    """Put one legend for all panels above them, each label once; the labels in `first` go first."""
    found: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    labels = [*(one for one in first if one in found), *(one for one in found if one not in first)]
    if labels:
        columns = max(
            1, min(columns, int(LEGEND_CHARACTERS_PER_IN * figure.get_figwidth() / (max(map(len, labels)) + 7)))
        )
        handles = [found[one] for one in labels]
        figure.legend(handles, labels, fontsize="x-small", loc="outside upper center", ncols=min(columns, len(labels)))


def halo() -> list[withStroke]:
    """Return what keeps a text legible on lines: a white edge."""
    return [withStroke(linewidth=1.8, foreground="white")]


def say_in_place(axes: Axes, text: str) -> None:
    """Write a sentence into an empty panel."""
    axes.text(
        0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", wrap=True, color=ALERT, fontsize="small"
    )
