"""A server that was there already: throughput and latencies over what was asked of it."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from memgap.figures.footer import write_footer
from memgap.figures.spec import FigureSpec
from memgap.figures.style import log2_axis, new_figure, palette, say_in_place
from memgap.tables.fate import INVALID
from memgap.tables.inputs import Inputs
from memgap.tables.provenance import source_line

LATENCIES = ("ttft", "itl", "e2e")
FIGURE = FigureSpec(
    name="endpoint",
    title="A server that was there already",
    reads=("endpoints.endpoint",),
    of="endpoints",
    file="{group}.endpoint",
    category="Endpoints",
    target="endpoint",
    caption="""
Left, output tokens a second over the requests in flight, or over the offered rate; right, the time to first token,
between tokens and of whole requests, mean as a line and the 99th percentile dotted. All are what the client saw, the
network between included. Repeats are averaged.
""",
)


def draw(inputs: Inputs) -> tuple[Figure, pd.DataFrame]:
    """Return the figure and the plotted numbers."""
    table = inputs["endpoints.endpoint"]
    fates = table["status"].where(table["verdict"] != INVALID, INVALID)
    rated = bool(table["rate_req_s"].notna().any())
    good = table[fates == "ok"].assign(asked=table["rate_req_s"] if rated else table["batch_cap"])
    columns = ["output_throughput_tok_s", *(f"{name}_{part}_ms" for name in LATENCIES for part in ("mean", "p99"))]
    means = good.groupby(["url", "model", "asked"], sort=True)[columns].mean().reset_index()
    figure, (left, right) = new_figure(2)
    for axes in (left, right):
        if means.empty:
            say_in_place(axes, "no point was measured")
            continue
        _asked_axis(axes, means["asked"], rated)
    for colour, ((url, model), own) in zip(palette(9), means.groupby(["url", "model"], sort=False), strict=False):
        left.plot(own["asked"], own["output_throughput_tok_s"], marker="o", color=colour, label=f"{model} at {url}")
    if not means.empty:
        left.set_ylabel("Output tokens/s")
        left.set_ylim(bottom=0)
        left.legend(fontsize=6)
        _latencies(right, means)
    lost = table.assign(fate=fates)[fates != "ok"]
    alerts = [f"not drawn: cap {row.batch_cap:.0f} ({row.fate})" for row in lost.itertuples()]
    write_footer(figure, [source_line(table, [f"{len(table)} points"])], list(dict.fromkeys(alerts)))
    return figure, means


def _asked_axis(axes: Axes, asked: "pd.Series[float]", rated: bool) -> None:
    if rated:
        axes.set_xlabel("Offered rate (requests/s)")
        return
    caps = sorted({int(one) for one in asked})
    log2_axis(axes, caps)
    axes.set_xticks(caps, [str(one) for one in caps])
    axes.minorticks_off()
    axes.set_xlabel("Requests in flight")


def _latencies(axes: Axes, means: pd.DataFrame) -> None:
    first = means[(means["url"] == means["url"].iloc[0]) & (means["model"] == means["model"].iloc[0])]
    for name, colour in zip(LATENCIES, palette(len(LATENCIES)), strict=True):
        axes.plot(first["asked"], first[f"{name}_mean_ms"], marker="o", color=colour, label=name.upper())
        axes.plot(first["asked"], first[f"{name}_p99_ms"], linestyle=":", color=colour)
    axes.set_yscale("log")
    axes.set_ylabel("Latency (ms), dotted: p99")
    axes.legend(fontsize=6)
