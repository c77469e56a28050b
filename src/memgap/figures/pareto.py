"""Throughput per GPU over latency of a tuning's configurations, the default and the winner marked."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from memgap.declared.figures import FigureSpec
from memgap.figures.marks import on_front
from memgap.figures.style import ALERT, GREY, MARKERS, apply_style, palette, say_in_place
from memgap.figures.tuning_looks import WIDTH_IN, short, write_tuning_footer
from memgap.tables.inputs import Inputs

FIGURE = FigureSpec(
    name="pareto",
    title="Throughput over latency of a tuning",
    reads=("tuning.results",),
    file="tuning/{group}.pareto",
    of="tuning",
    category="Tuning",
    target="tuning",
    caption="""
Throughput per GPU over the mean time per output token; the dashed line joins what no other one beats in both. See
docs/tuning.md.
""",
)


def draw(inputs: Inputs) -> tuple[Figure, pd.DataFrame]:
    """Draw throughput per GPU over the mean time per output token, a panel a model; the default and winner marked."""
    table = inputs["tuning.results"]
    columns = ["model", "prompt_template_name", "tier", "label", "state", "is_default", "tpot_mean_ms"]
    data = table[table["blocks"].fillna(0) > 0][[*columns, "output_tps_per_gpu"]].copy()
    data["on_front"] = False
    groups = list(data.groupby(["model", "prompt_template_name"], sort=False))
    apply_style()
    figure = Figure(figsize=(WIDTH_IN, 0.9 + 3.1 * max(1, -(-len(groups) // 2))), layout="constrained")
    columns_count = min(2, max(1, len(groups)))
    several = data["prompt_template_name"].nunique() > 1
    tiers = list(dict.fromkeys(data["tier"]))
    for place, ((model, dataset), own) in enumerate(groups):
        axes = figure.add_subplot(-(-len(groups) // columns_count), columns_count, place + 1)
        front = on_front(-own["tpot_mean_ms"], own["output_tps_per_gpu"])
        data.loc[own.index[front], "on_front"] = True
        line = own[front].sort_values("tpot_mean_ms")
        axes.plot(line["tpot_mean_ms"], line["output_tps_per_gpu"], color=GREY, linewidth=1, linestyle="--")
        for number, tier in enumerate(tiers):
            part = own[own["tier"] == tier]
            axes.plot(
                part["tpot_mean_ms"],
                part["output_tps_per_gpu"],
                linestyle="none",
                marker=MARKERS[number],
                color=palette(8)[number],
                markersize=5,
            )
        _ring(axes, own[own["is_default"].astype(bool)], "black", "s", 11)
        last = own[(own["state"] == "winner") & (own["tier"] == tiers[-1])]
        _ring(axes, last, ALERT, "o", 11)
        for _, row in line.iterrows():
            axes.annotate(
                short(str(row["label"]), 30),
                (row["tpot_mean_ms"], row["output_tps_per_gpu"]),
                xytext=(5, -8),
                textcoords="offset points",
                fontsize=6,
            )
        axes.margins(x=0.2, y=0.12)
        axes.set_title(f"{model}{f', {dataset}' if several else ''}")
        axes.set_xlabel("Mean time per output token (ms)")
        axes.set_ylabel("Output tok/s per GPU")
    if not groups:
        say_in_place(figure.add_subplot(1, 1, 1), "nothing was measured")
    handles: list[Any] = [
        Line2D([], [], linestyle="none", marker=MARKERS[n], color=palette(8)[n], label=f"tier {tier}")
        for n, tier in enumerate(tiers)
    ]
    handles += [
        Line2D(
            [], [], linestyle="none", marker="s", markersize=9, markerfacecolor="none", color="black", label="default"
        ),
        Line2D([], [], linestyle="none", marker="o", markersize=9, markerfacecolor="none", color=ALERT, label="winner"),
        Line2D([], [], linestyle="--", color=GREY, label="best trade-offs"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(6, len(handles)), fontsize="x-small")
    write_tuning_footer(figure, table)
    return figure, data


def _ring(axes: Axes, rows: pd.DataFrame, colour: str, marker: str, size: float) -> None:
    axes.plot(
        rows["tpot_mean_ms"],
        rows["output_tps_per_gpu"],
        linestyle="none",
        marker=marker,
        markersize=size,
        markerfacecolor="none",
        markeredgecolor=colour,
        markeredgewidth=1.4,
    )
