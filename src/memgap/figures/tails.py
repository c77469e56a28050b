"""How often a latency is exceeded: the tails of time to first token and of the time between tokens."""

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from memgap.declared.figures import FigureSpec
from memgap.figures.footer import write_provenance
from memgap.figures.points import offered
from memgap.figures.style import legend_above, log_axis, model_looks, new_figure, say_in_place
from memgap.tables.inputs import Inputs

METRICS = {
    "ttft": "Time to first token (ms)",
    "itl": "Inter-token latency (ms)",
    "tpot": "Time per output token of a request (ms)",
}
STYLES = (":", "--", "-")
"""Of the least, a middle and the largest load of a model; others are not drawn."""
FIGURE = FigureSpec(
    name="tails",
    title="How often a latency is exceeded",
    reads=("sweep.points", "sweep.tails"),
    caption="""
The share of values above a latency, both axes logarithmic: where a curve meets 0.01 is the 99th percentile. A steep
end says that nobody waits much longer than the others, a long flat one that a few do. Bands are 95 % bands for the
whole curve by Dvoretzky, Kiefer and Wolfowitz, with as many values as there are requests; where a band reaches down to
the axis the tail is not known. Right, the time between tokens; where single tokens were not kept, as in recorded data,
the mean of each request, whose tail is shorter. Drawn are a model's least, middle and largest load.
""",
)


def draw(inputs: Inputs) -> tuple[Figure, pd.DataFrame]:
    """Return the figure and the plotted numbers (one row a model, load, metric and latency)."""
    _, label = offered(inputs["sweep.points"])
    table = inputs["sweep.tails"]
    table = table.assign(asked=table["rate_req_s"].fillna(table["batch_cap"]))
    models = list(dict.fromkeys(table["model"]))
    kept = {model: _spread(sorted(set(table.loc[table["model"] == model, "asked"]))) for model in models}
    drawn = [load in kept[model] for model, load in zip(table["model"], table["asked"], strict=True)]
    data = table[pd.Series(drawn, index=table.index, dtype=bool)].reset_index(drop=True)
    figure, panels = new_figure(2, height_in=3.7)
    looks = model_looks(models)
    between = [name for name in ("itl", "tpot") if (data["metric"] == name).any()] or ["itl"]
    for axes, metric in zip(panels, ("ttft", between[0]), strict=True):
        for (model, asked), own in data[data["metric"] == metric].groupby(["model", "asked"], sort=True):
            colour, marker = looks[str(model)]
            look: dict[str, Any] = {"color": colour, "linestyle": kept[str(model)][float(str(asked))]}
            axes.plot(own["latency_ms"], own["beyond_fraction"], linewidth=1.2, label=f"{model}, {asked:g}", **look)
            last = own.iloc[-1]
            axes.plot(last["latency_ms"], last["beyond_fraction"], color=colour, marker=marker, markersize=4)
            low = (own["beyond_fraction"] - own["band_fraction"]).clip(lower=1e-9)
            high = (own["beyond_fraction"] + own["band_fraction"]).clip(upper=1.0)
            axes.fill_between(own["latency_ms"], low, high, color=colour, alpha=0.1, linewidth=0)
        axes.set_xlabel(METRICS[metric])
        if data.empty:
            say_in_place(axes, "no point of this sweep kept its requests")
            continue
        log_axis(axes, "x")
        axes.set_yscale("log")
        axes.set_ylim(data["beyond_fraction"].min() / 1.5, 1.2)
    panels[0].set_ylabel("Share of values beyond")
    legend_above(figure, 6)
    about = f"lines by {label[0].lower() + label[1:]}; bands: DKW, 95 %, by the number of requests" if len(data) else ""
    write_provenance(figure, inputs["sweep.points"], bars=about)
    return figure, data


def _spread(loads: list[float]) -> dict[float, str]:
    """Return the least, a middle and the largest load with the style of their lines."""
    return {loads[round(place * (len(loads) - 1) / 2)]: style for place, style in enumerate(STYLES)} if loads else {}
