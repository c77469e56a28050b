"""Figure 12: throughput over KV-cache usage for several output lengths, one panel a model, one series a dataset."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from memgap.declared.figures import FigureSpec
from memgap.figures.footer import write_provenance
from memgap.figures.marks import SIDE_STYLE, bars
from memgap.figures.paper import LABEL, overlay, read_paper
from memgap.figures.points import bars_note, per_cap
from memgap.figures.style import ALERT, GREY, MARKERS, new_grid, palette, say_in_place
from memgap.tables.fate import DRAWN, GOOD, fate
from memgap.tables.inputs import Inputs
from memgap.tables.provenance import foreign

USAGE, PERCENT, THROUGHPUT = "kv_cache_usage_max_fraction", "kv_cache_usage_max_percent", "total_throughput_tok_s"
PAPER_X, PAPER_Y = "kv_cache_max_usage_pct", "total_token_throughput_tok_per_s"
LEGEND_COLUMNS = 5
FIGURE = FigureSpec(
    name="fig12",
    title="Figure 12: throughput over KV-cache usage by output length",
    reads=("sweep.points",),
    paper=True,
    caption="""
One panel a model, one line a dataset, named by the mean output length of its completed requests ("130 tokens"; with
the dataset's name where two round to the same); the CSV has both (`dataset`, `output_tokens_mean`). Longer outputs
hold their cache for longer, so they need more of it for the same throughput. Bars as in figures 2 and 3. The paper's
lines have their output length at their end. Corrected: preempted points are open markers; the published script keeps
them among the others, and leaves failed runs out in silence.
""",
)


def draw(inputs: Inputs) -> tuple[Figure, pd.DataFrame]:
    """Return the figure and the plotted numbers (one row a model, dataset, cap and its side; means over repeats)."""
    data = plotted(inputs["sweep.points"])
    ours = inputs["sweep.points"]
    models = list(dict.fromkeys(ours.loc[~foreign(ours), "model"].dropna()))
    figure, panels = new_grid(len(models))
    labels = series_labels(data)
    looks = _looks(list(dict.fromkeys(dataset for dataset, _ in labels)))
    shown: dict[str, Any] = {}
    for axes, model in zip(panels, models, strict=False):
        own = data[data["model"] == model]
        if inputs.paper_reference is not None:
            _overlay_paper(axes, inputs, model)
            shown.setdefault(LABEL, Line2D([], [], color=GREY, linewidth=1, linestyle="--"))
        for (dataset, side), series in own.groupby(["dataset", "cap_side"], sort=False):
            _draw_series(axes, series, *looks[str(dataset)], SIDE_STYLE[str(side)], labels[str(dataset), str(side)])
        shown.update({str(one.get_label()): one for one in axes.containers})
        axes.set_title(model)
        axes.set_xlabel("Largest KV-cache usage (% of the pool)")
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        if own.empty:
            say_in_place(axes, "no point of this sweep was measured")
    if (data["fate"] != GOOD).any():
        shown["preempted"] = Line2D([], [], linestyle="none", marker="o", color="white", markeredgecolor=ALERT)
    _legend(figure, shown, list(labels.values()))
    figure.supylabel("Throughput, prompt + output (tok/s)", fontsize="medium")
    note = bars_note(data[data["fate"] == GOOD])
    write_provenance(figure, inputs["sweep.points"], bars=note, by=("model", "dataset"))
    return figure, data


def plotted(table: pd.DataFrame) -> pd.DataFrame:
    """Return the drawn points with the columns of `per_cap` and their dataset's mean output length.

    That length, `output_tokens_mean`, is the mean over all completed requests of the dataset's points; datasets stand
    in its order within each model.
    """
    table = table[~foreign(table)]  # other tools know no KV cache
    data = per_cap(table.assign(**{PERCENT: 100 * table[USAGE]}), [PERCENT, THROUGHPUT], by=["dataset"])
    totals = table[fate(table).isin(DRAWN)].groupby("dataset")[["output_tokens", "requests_completed"]].sum()
    lengths = totals["output_tokens"] / totals["requests_completed"].where(totals["requests_completed"] > 0)
    data.insert(2, "output_tokens_mean", data["dataset"].map(lengths).astype(float))
    models = {model: place for place, model in enumerate(dict.fromkeys(data["model"]))}
    order = data.assign(place=data["model"].map(models)).sort_values(
        ["place", "output_tokens_mean", "dataset", "cap_side", "batch_cap"], kind="stable", ignore_index=True
    )
    return order.drop(columns="place")


def series_labels(data: pd.DataFrame) -> dict[tuple[str, str], str]:
    """Return the label of each (dataset, cap_side) in the order of the mean output length: "130 tokens".

    The dataset's name is added where two lengths round to the same, the cap's side where there are both.
    """
    columns = ["output_tokens_mean", "dataset", "cap_side"]
    series = data[columns].drop_duplicates().sort_values(columns)
    rounded = series.drop_duplicates("dataset")["output_tokens_mean"].round()
    common, sides = Counter(rounded), series["cap_side"].nunique()
    labels = {}
    for mean, dataset, side in series.itertuples(index=False):
        name = f" ({dataset})" if common[round(mean)] > 1 else ""
        capped = f", cap on the {side}" if sides > 1 else ""
        labels[dataset, side] = f"{mean:.0f} tokens{name}{capped}"
    return labels


def _looks(datasets: list[str]) -> Mapping[str, tuple[tuple[float, float, float], str]]:
    colours = palette(len(datasets))
    return {name: (colours[place], MARKERS[place % len(MARKERS)]) for place, name in enumerate(datasets)}


def _draw_series(
    axes: Axes, own: pd.DataFrame, colour: tuple[float, float, float], marker: str, style: str, label: str
) -> None:
    good, evicted = own[own["fate"] == GOOD], own[own["fate"] != GOOD]
    axes.errorbar(
        good[PERCENT],
        good[THROUGHPUT],
        yerr=bars(good, THROUGHPUT, f"{THROUGHPUT}_low", f"{THROUGHPUT}_high"),
        color=colour,
        marker=marker,
        markersize=4,
        linestyle=style,
        linewidth=1.2,
        capsize=2,
        label=label,
    )
    axes.plot(
        evicted[PERCENT],
        evicted[THROUGHPUT],
        linestyle="none",
        marker=marker,
        markersize=4.5,
        markerfacecolor="white",
        markeredgecolor=ALERT,
    )


def _legend(figure: Figure, shown: Mapping[str, Any], series: list[str]) -> None:
    """Write one legend above the panels: the series in order, then what else is drawn."""
    names = [name for name in series if name in shown] + [name for name in shown if name not in series]
    if names:
        figure.legend(
            [shown[name] for name in names],
            names,
            loc="outside upper center",
            ncols=min(LEGEND_COLUMNS, len(names)),
            fontsize="x-small",
            title="mean output length",
            title_fontsize="x-small",
        )


def _overlay_paper(axes: Axes, inputs: Inputs, model: str) -> None:
    """Draw the paper's lines of a model, each with its output length at its end."""
    assert inputs.paper_reference is not None
    paper = read_paper(inputs.paper_reference, "fig12", ["model", "output_len_tokens", PAPER_X, PAPER_Y, "plotted"])
    own = paper[(paper["model"] == model) & paper["plotted"]]
    overlay(axes, own.assign(model=own["output_len_tokens"]), PAPER_X, PAPER_Y)
    for length, line in own.groupby("output_len_tokens"):
        end = line.iloc[-1]
        axes.annotate(
            f"{length}",
            (end[PAPER_X], end[PAPER_Y]),
            xytext=(2, 0),
            textcoords="offset points",
            va="center",
            fontsize=5,
            color=GREY,
        )
