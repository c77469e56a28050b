"""Latencies and throughput over the load: where a server bends."""

import math

import pandas as pd
from matplotlib.figure import Figure

from memgap.declared.figures import FigureSpec
from memgap.figures.footer import write_provenance
from memgap.figures.marks import bars
from memgap.figures.points import bars_note, offered, per_cap
from memgap.figures.style import GREY, legend_above, log2_axis, log_axis, model_looks, new_grid, say_in_place
from memgap.tables.fate import GOOD
from memgap.tables.inputs import Inputs

OUTPUT = "output_throughput_tok_s"
LATENCIES = {"ttft": "Time to first token (ms)", "itl": "Inter-token latency (ms)", "e2e": "End-to-end latency (ms)"}
LINES = {"median": "-", "p99": ":"}
FIGURE = FigureSpec(
    name="load_latency",
    title="Latencies over the load",
    reads=("sweep.points",),
    caption="""
Throughput, then the time to first token, between tokens and of whole requests, over the offered rate, or over the
requests in flight where no point has a rate. Solid is the median, dotted the 99th percentile, as the client saw them.
The dashed line is the knee of a model's throughput: the load where the curve, with both axes scaled to 0 to 1, is
farthest above the straight line between its ends. Up to there more load is more throughput, beyond it more waiting. It
is drawn where there are four loads or more and the curve bends at all, and is no bound of anybody's.
""",
)


def draw(inputs: Inputs) -> tuple[Figure, pd.DataFrame]:
    """Return the figure and the plotted numbers (one row a model and load; means over repeats)."""
    points, label = offered(inputs["sweep.points"])
    columns = [OUTPUT, *(f"{name}_{part}_ms" for name in LATENCIES for part in LINES)]
    data = per_cap(points, columns, by=("asked",))
    data = data[data["fate"] == GOOD].drop(columns="fate").reset_index(drop=True)
    knees = {model: knee(own["asked"], own[OUTPUT]) for model, own in data.groupby("model", sort=False)}
    data["knee"] = [knees[model] for model in data["model"]]
    figure, panels = new_grid(4)
    for model, (colour, marker) in model_looks(list(dict.fromkeys(data["model"]))).items():
        own = data[data["model"] == model].dropna(subset=[OUTPUT])
        width = bars(own, OUTPUT, f"{OUTPUT}_low", f"{OUTPUT}_high")
        panels[0].errorbar(
            own["asked"],
            own[OUTPUT],
            yerr=width,
            color=colour,
            marker=marker,
            markersize=4,
            capsize=2,
            label=str(model),
        )
        for axes, name in zip(panels[1:], LATENCIES, strict=True):
            for part, style in LINES.items():
                axes.plot(
                    own["asked"], own[f"{name}_{part}_ms"], color=colour, marker=marker, markersize=3, linestyle=style
                )
        for axes in panels:
            if not math.isnan(knees[model]):
                axes.axvline(knees[model], color=colour, linestyle="--", linewidth=0.8)
    for axes, title in zip(panels, ["Output tokens/s", *LATENCIES.values()], strict=True):
        axes.set_xlabel(label, fontsize="small")
        axes.set_ylabel(title, fontsize="small")
        log2_axis(axes, list(data["asked"]))
        if data.empty:
            say_in_place(axes, "no point of this sweep was measured")
        elif axes is not panels[0]:
            log_axis(axes, "y")
    panels[0].set_ylim(bottom=0)
    if not data.empty:
        panels[0].plot([], [], color=GREY, linestyle="-", label="median")
        panels[0].plot([], [], color=GREY, linestyle=":", label="99th percentile")
        panels[0].plot([], [], color=GREY, linestyle="--", linewidth=0.8, label="knee")
        legend_above(figure, 7)
    write_provenance(figure, inputs["sweep.points"], bars=bars_note(data))
    return figure, data


def knee(load: "pd.Series[float]", reached: "pd.Series[float]") -> float:
    """Return the load at which a rising curve bends most (Satopaa et al. 2011); not a number where none can be told."""
    curve = pd.DataFrame({"x": load, "y": reached}).dropna().sort_values("x")
    spans = curve.max() - curve.min()
    if len(curve) < 4 or (spans <= 0).any():
        return math.nan
    scaled = (curve - curve.min()) / spans
    bend = scaled["y"] - scaled["x"]
    return float(curve["x"].to_numpy()[int(bend.to_numpy().argmax())]) if bend.max() > 0.1 else math.nan
