"""The share of requests that keep an SLO, and their rate, over the load."""

import math

import pandas as pd
from matplotlib.figure import Figure

from memgap.declared.figures import FigureSpec
from memgap.figures.footer import write_provenance
from memgap.figures.points import offered
from memgap.figures.style import GREY, legend_above, log2_axis, model_looks, new_figure, say_in_place
from memgap.tables.fate import DRAWN, fate, replicated
from memgap.tables.goodput import wilson_interval
from memgap.tables.inputs import Inputs

WANTED = 0.9
"""The share of requests that has to keep the SLO up to the edge."""
STYLES = ("-", "--", ":", "-.")
FIGURE = FigureSpec(
    name="attainment",
    title="Requests that keep an SLO over the load",
    reads=("sweep.points", "sweep.goodput"),
    caption="""
Left, the share of the requests that kept all bounds of an SLO of `slos`, failed ones counted as not, with its 95 %
Wilson band over the requests of all repeats; right, such requests a second. The vertical line is the edge: the highest
load up to which the lower bound of the band stays at 90 % or more. A wide band says that there were few requests.
""",
)


def draw(inputs: Inputs) -> tuple[Figure, pd.DataFrame]:
    """Return the figure and the plotted numbers (one row a model, SLO and load; requests of all repeats)."""
    points, label = offered(inputs["sweep.points"])
    data = attained(points, inputs["sweep.goodput"])
    figure, (left, right) = new_figure(2, height_in=3.6)
    styles = dict(zip(dict.fromkeys(data["slo"]), STYLES * 9, strict=False))
    looks = model_looks(list(dict.fromkeys(data["model"])))
    for (model, slo), own in data.groupby(["model", "slo"], sort=False):
        colour, marker = looks[str(model)]
        named = f"{model}, {slo}"
        left.plot(own["asked"], 100 * own["attained_fraction"], styles[slo], color=colour, marker=marker, label=named)
        low, high = (100 * own[f"attained_{end}_fraction"] for end in ("low", "high"))
        left.fill_between(own["asked"], low, high, color=colour, alpha=0.2, linewidth=0)
        right.plot(own["asked"], own["goodput_req_s"], styles[slo], color=colour, marker=marker)
        edge = own["edge"].iloc[0]
        for axes in (left, right):
            if not math.isnan(edge):
                axes.axvline(edge, color=colour, linestyle=styles[slo], linewidth=0.8)
    left.axhline(100 * WANTED, color=GREY, linewidth=0.8)
    left.set_ylim(0, 103)
    left.set_ylabel("Requests within the SLO (%)")
    right.set_ylabel("Requests/s within the SLO")
    right.set_ylim(bottom=0)
    for axes in (left, right):
        axes.set_xlabel(label)
        log2_axis(axes, list(data["asked"]))
        if data.empty:
            say_in_place(axes, "no point of this sweep kept its requests, or no SLO is in `slos`")
    legend_above(figure, 4)
    write_provenance(figure, inputs["sweep.points"], bars="bands: Wilson, 95 %, over requests" if len(data) else "")
    return figure, data


def attained(points: pd.DataFrame, goodput: pd.DataFrame) -> pd.DataFrame:
    """Return one row a model, SLO and load: shares over the requests of all repeats, and each SLO's edge."""
    drawn = points[fate(points).isin(DRAWN) & ~replicated(points)][["key", "asked"]]
    counts = goodput.merge(drawn, on="key")
    rows = []
    for (model, slo, asked), own in counts.groupby(["model", "slo", "asked"], sort=False):
        sent, good = int(own["requests_sent"].sum()), int(own["requests_good"].sum())
        low, high = wilson_interval(good, sent)
        share = good / sent if sent else math.nan
        rows.append((model, slo, asked, len(own), sent, good, share, low, high, own["goodput_req_s"].mean()))
    names = ["model", "slo", "asked", "repeats", "requests_sent", "requests_good"]
    shares = ["attained_fraction", "attained_low_fraction", "attained_high_fraction", "goodput_req_s"]
    data = pd.DataFrame(rows, columns=[*names, *shares]).sort_values(["model", "slo", "asked"], ignore_index=True)
    edges = {key: _edge(own) for key, own in data.groupby(["model", "slo"])}
    return data.assign(edge=[edges[key] for key in zip(data["model"], data["slo"], strict=True)])


def _edge(own: pd.DataFrame) -> float:
    kept = (own["attained_low_fraction"] >= WANTED).cumprod().astype(bool)
    return float(own.loc[kept, "asked"].max()) if kept.any() else math.nan
