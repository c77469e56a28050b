"""KV cache that is held and wasted: paged blocks against contiguous room, computed from the lengths and measured."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from memgap.declared.figures import FigureSpec
from memgap.figures.comparison_looks import LAYOUT_NAMES, batch_axis, write_small_print
from memgap.figures.style import MARKERS, new_figure, palette, say_in_place
from memgap.stats.layouts import REASONS
from memgap.tables.inputs import Inputs

SHARES = ("used", *REASONS)
LABELS = {
    "used": "used",
    "padding": "padding to the longest prompt",
    "finished": "ended, waits for the longest",
    "reserved": "reserved for tokens that are not there",
    "rounding": "rest of the last block",
}
FIGURE = FigureSpec(
    name="kv_waste",
    title="KV cache held and wasted",
    reads=("comparison.engines", "comparison.kv", "comparison.memory"),
    target="hf_vs_vllm",
    category="Engines compared",
    caption="""
What a KV cache holds and what share of it no token is in, by its layout: computed from the requests' lengths, and
measured where an engine ran so (rings). See docs/hf_vs_vllm.md.
""",
)


def draw(inputs: Inputs) -> tuple[Figure, pd.DataFrame]:
    """Return the figure and its numbers: one row a layout and batch, `measured_wasted_fraction` where it ran so."""
    data = figure_data(inputs["comparison.kv"])
    figure, panels = new_figure(2, width_in=9.0, height_in=3.8)
    if data.empty:
        for axes in panels:
            say_in_place(axes, "no point of this comparison was measured")
    else:
        batch = int(data["batch_cap"].max())
        _bars(panels[0], data[data["batch_cap"] == batch], batch)
        _lines(panels[1], data)
    note = "computed from the requests' lengths, summed over their decode steps; rings are measured"
    if len(blocks := sorted(set(data["block_tokens"]))):
        note += f"; blocks of {', '.join(f'{one:g}' for one in blocks)} tokens"
    write_small_print(figure, inputs["comparison.engines"], note)
    return figure, data


def figure_data(kv: pd.DataFrame) -> pd.DataFrame:
    """Return one row a layout and batch with the share of each kind of place of all that is held, 0 to 1."""
    rows = []
    for layout in LAYOUT_NAMES:
        for batch, own in kv[kv["layout"] == layout].groupby("batch_cap"):
            first = own.iloc[0]
            held = first["held_token_steps"]
            shares = {f"{name}_fraction": first[f"{name}_token_steps"] / held for name in SHARES}
            measured = own["measured_wasted_fraction"].dropna()
            rows.append(
                {
                    "layout": layout,
                    "batch_cap": batch,
                    "block_tokens": first["block_tokens"],
                    **shares,
                    "wasted_fraction": first["wasted_fraction"],
                    "measured_wasted_fraction": measured.mean() if len(measured) else None,
                }
            )
    columns = ["layout", "batch_cap", "block_tokens", *(f"{name}_fraction" for name in SHARES)]
    return pd.DataFrame(rows, columns=[*columns, "wasted_fraction", "measured_wasted_fraction"])


def _bars(axes: Axes, data: pd.DataFrame, batch: int) -> None:
    bottom = pd.Series(0.0, index=data.index)
    places = range(len(data))
    for colour, name in zip(palette(len(SHARES)), SHARES, strict=True):
        values = data[f"{name}_fraction"]
        axes.bar(places, values * 100, bottom=bottom * 100, color=colour, label=LABELS[name], width=0.7)
        bottom = bottom + values
    measured = 100 * (1 - data["measured_wasted_fraction"].astype(float))
    axes.plot(
        places,
        measured,
        linestyle="none",
        marker="o",
        markersize=7,
        markerfacecolor="none",
        color="black",
        label="used, measured",
    )
    axes.set_xticks(list(places), [LAYOUT_NAMES[one] for one in data["layout"]], fontsize=6)
    axes.set_ylabel(f"Share of the KV cache held, batch {batch} (%)")
    axes.set_ylim(0, 150)
    axes.set_yticks([0, 25, 50, 75, 100])
    axes.legend(fontsize=5.5, ncols=2, loc="upper center")


def _lines(axes: Axes, data: pd.DataFrame) -> None:
    layouts = list(dict.fromkeys(data["layout"]))
    for place, (colour, layout) in enumerate(zip(palette(len(layouts)), layouts, strict=True)):
        own = data[data["layout"] == layout]
        name = LAYOUT_NAMES[layout].replace("\n", " ")
        axes.plot(
            own["batch_cap"],
            100 * own["wasted_fraction"],
            color=colour,
            marker=MARKERS[place],
            markersize=4,
            label=name,
        )
        measured = 100 * own["measured_wasted_fraction"].astype(float)
        axes.plot(
            own["batch_cap"], measured, linestyle="none", marker="o", markersize=8, markerfacecolor="none", color=colour
        )
    batch_axis(axes, data["batch_cap"])
    axes.set_ylabel("KV cache held but wasted (%)")
    axes.set_ylim(0, 150)
    axes.set_yticks([0, 25, 50, 75, 100])
    axes.legend(fontsize=5.5, ncols=2, loc="upper center")
