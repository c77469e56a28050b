"""What another version of an engine does to the same points."""

import math
import re

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from memgap.declared.figures import FigureSpec
from memgap.figures.footer import write_provenance
from memgap.figures.marks import bars
from memgap.figures.style import GREY, legend_above, model_looks, new_figure, say_in_place
from memgap.stats.intervals import mean_interval
from memgap.tables.fate import GOOD, fate
from memgap.tables.inputs import Inputs

METRICS = {
    "output_throughput_tok_s": "Output tokens/s",
    "itl_mean_ms": "Mean inter-token latency",
    "ttft_median_ms": "Median time to first token",
}
PAIRED = (
    "model",
    "engine",
    "gpu_name",
    "dataset",
    "batch_cap",
    "cap_side",
    "rate_req_s",
    "replicas",
    "mps",
    "server_args",
)
COLUMNS = ["model", "engine", "version", "metric", "pairs", "ratio", "ratio_low", "ratio_high", "interval_source"]
FIGURE = FigureSpec(
    name="versions",
    title="A trend over versions of the engine",
    reads=("sweep.points",),
    caption="""
Each point of a version is paired with the point of the oldest version in the sweep that is alike in all else: model,
workload, load, flags, GPU. y is the mean of the logarithms of the ratios, as a ratio, with Student's or the
bootstrap's 95 % interval over the pairs: an interval that does not touch 1 is a change that all pairs share. Above 1
is faster on the left and slower in the other panels. Points without a partner are left out; one pair has no interval.
""",
)


def draw(inputs: Inputs) -> tuple[Figure, pd.DataFrame]:
    """Return the figure and the plotted numbers (one row a model, engine, version and metric)."""
    data = trend(inputs["sweep.points"])
    figure, panels = new_figure(len(METRICS), height_in=3.2)
    versions = sorted(set(data["version"]), key=version_order)
    looks = model_looks(list(dict.fromkeys(data["model"])))
    for axes, (metric, title) in zip(panels, METRICS.items(), strict=True):
        for (model, engine), own in data[data["metric"] == metric].groupby(["model", "engine"], sort=False):
            colour, marker = looks[str(model)]
            places = [versions.index(version) for version in own["version"]]
            width = bars(own, "ratio", "ratio_low", "ratio_high")
            axes.errorbar(
                places, own["ratio"], yerr=width, color=colour, marker=marker, capsize=3, label=f"{model}, {engine}"
            )
        axes.axhline(1.0, color=GREY, linewidth=0.8, linestyle="--")
        axes.set_xticks(range(len(versions)), versions, fontsize="x-small", rotation=30 if len(versions) > 3 else 0)
        axes.set_title(title, fontsize="small")
        axes.margins(x=0.15)
        if data.empty:
            say_in_place(axes, "no point of this sweep has a partner of another version")
    panels[0].set_ylabel("Ratio to the oldest version", fontsize="small")
    legend_above(figure, 4)
    sources = "; ".join(dict.fromkeys(one for one in data["interval_source"] if one))
    write_provenance(figure, inputs["sweep.points"], bars=sources)
    return figure, data


def trend(points: pd.DataFrame) -> pd.DataFrame:
    """Return the ratios of each version to the oldest one over pairs of points; repeats of a point are averaged."""
    good = points[fate(points) == GOOD].dropna(subset=["engine_version"])
    keys = [good[name].astype(object).where(good[name].notna(), "").rename(name) for name in PAIRED]
    means = good.groupby([*keys, "engine_version"], sort=False)[list(METRICS)].mean().reset_index()
    rows = []
    for (model, engine), own in means.groupby(["model", "engine"], sort=False):
        versions = sorted(set(own["engine_version"]), key=version_order)
        if len(versions) < 2:
            continue
        oldest = own[own["engine_version"] == versions[0]]
        for version in versions:
            pairs = own[own["engine_version"] == version].merge(oldest, on=list(PAIRED), suffixes=("", "_old"))
            for metric in METRICS:
                ratios = np.log((pairs[metric] / pairs[f"{metric}_old"]).dropna().to_numpy(dtype=float))
                found = mean_interval(list(ratios), "pairs") if version != versions[0] else None
                bounds = (math.exp(found.low), math.exp(found.high)) if found else (math.nan, math.nan)
                mean = math.exp(float(np.mean(ratios))) if len(ratios) else math.nan
                rows.append((model, engine, version, metric, len(ratios), mean, *bounds, found.source if found else ""))
    return pd.DataFrame(rows, columns=COLUMNS)


def version_order(version: str) -> list[tuple[int, str]]:
    """Return what versions are sorted by: numbers as numbers."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.findall(r"\d+|[a-z]+", version.lower())]
