"""One point request by request, above what the engine said meanwhile."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from memgap.declared.figures import FigureSpec
from memgap.figures.footer import write_provenance
from memgap.figures.points import offered
from memgap.figures.style import ALERT, apply_style, legend_above, palette, say_in_place
from memgap.tables.fate import GOOD, fate
from memgap.tables.inputs import Inputs

COLUMNS = ["record", "index", "status", "start_s", "first_token_s", "last_token_s", "time_s", "running_reqs"]
MOST_REQUESTS = 100
"""Of more, so many around the moment with the most running are drawn; the CSV has all."""
GAUGES = ["waiting_reqs", "kv_cache_usage_fraction"]
FIGURE = FigureSpec(
    name="waterfall",
    title="Requests of one point over time",
    reads=("sweep.points", "sweep.requests", "sweep.gauges"),
    caption="""
Above, a line a request in the order of sending: light until its first token, dark until its last one; red did not end
well. Below, on the same clock, the requests that the engine says are running and waiting, and the share of the KV
cache in use. Long light parts with free KV cache are a queue for something else than memory. The point is the one with
the highest load of the first model, of the first repeat, whose requests were kept; times count from the window's
start. Of many requests a hundred around the busiest moment are drawn; the CSV has all.
""",
)


def draw(inputs: Inputs) -> tuple[Figure, pd.DataFrame]:
    """Return the figure and the plotted numbers: a row a request (record `request`), and a row a sample (`sample`)."""
    point = chosen(inputs["sweep.points"], inputs["sweep.requests"])
    apply_style()
    figure = Figure(figsize=(7.2, 5.0), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    if point is None:
        say_in_place(upper, "no point of this sweep kept its requests")
        say_in_place(lower, "no point of this sweep kept its requests")
        write_provenance(figure, inputs["sweep.points"])
        return figure, pd.DataFrame(columns=[*COLUMNS, *GAUGES])
    table = inputs["sweep.requests"]
    requests = table[table["key"] == point["key"]].assign(start_s=lambda own: own["intended_s"].fillna(own["sent_s"]))
    requests = requests.dropna(subset=["start_s"]).sort_values("start_s", kind="stable", ignore_index=True)
    samples = inputs["sweep.gauges"]
    samples = samples[samples["key"] == point["key"]].sort_values("time_s", kind="stable")
    shown = _middle(requests, samples)
    _draw_requests(upper, shown)
    upper.set_xlim(shown["start_s"].min() - 0.2, float(shown["last_token_s"].max()) + 0.2)
    _draw_samples(lower, samples)
    load = f"{point['rate_req_s']:g} requests/s" if pd.notna(point["rate_req_s"]) else f"cap {point['batch_cap']}"
    part = "" if len(shown) == len(requests) else f", {len(shown)} of {len(requests)} requests"
    upper.set_title(f"{point['model']}, {load}{part}")
    legend_above(figure, 6)
    write_provenance(figure, inputs["sweep.points"][inputs["sweep.points"]["key"] == point["key"]])
    both = [requests.assign(record="request"), samples.assign(record="sample")]
    data = pd.concat([one for one in both if len(one)], ignore_index=True)
    return figure, data.reindex(columns=[*COLUMNS, *GAUGES])


def chosen(points: pd.DataFrame, requests: pd.DataFrame) -> "pd.Series[Any] | None":
    """Return the row of the point that is drawn, None where no good point kept its requests."""
    own, _ = offered(
        points[(fate(points) == GOOD) & points["key"].isin(set(requests["key"])) & (points["repeat"] == 0)]
    )
    if own.empty:
        return None
    own = own[own["model"] == own["model"].iloc[0]]
    found: pd.Series[Any] = own.loc[own["asked"].idxmax()]
    return found


def _middle(requests: pd.DataFrame, samples: pd.DataFrame) -> pd.DataFrame:
    """Return at most `MOST_REQUESTS` requests, those that were sent around the moment with the most running."""
    if len(requests) <= MOST_REQUESTS:
        return requests
    busiest_s = (
        float(samples["time_s"].to_numpy()[int(samples["running_reqs"].to_numpy().argmax())]) if len(samples) else 0.0
    )
    before = int((requests["start_s"] < busiest_s).sum())
    first = min(max(before - MOST_REQUESTS // 2, 0), len(requests) - MOST_REQUESTS)
    return requests.iloc[first : first + MOST_REQUESTS]


def _draw_requests(axes: Axes, requests: pd.DataFrame) -> None:
    waited, decoded = palette(6)[5], palette(6)[0]
    height = max(0.4, 110.0 / max(len(requests), 1))
    look: dict[str, Any] = {"linewidth": min(height, 3.0), "capstyle": "butt"}
    good = requests[requests["first_token_s"].notna()]
    ends = good["last_token_s"].fillna(good["first_token_s"])
    axes.hlines(good.index, good["start_s"], good["first_token_s"], color=waited, label="until the first token", **look)
    axes.hlines(good.index, good["first_token_s"], ends, color=decoded, label="until the last token", **look)
    bad = requests[requests["status"] != "ok"]
    if len(bad):
        axes.plot(bad["start_s"], bad.index, "x", color=ALERT, markersize=4, label="did not end well")
    axes.set_ylabel("Request, in order of sending")
    axes.invert_yaxis()
    axes.grid(False, axis="y")


def _draw_samples(axes: Axes, samples: pd.DataFrame) -> None:
    colours = palette(6)
    axes.set_xlabel("Time since the window's start (s)")
    axes.set_ylabel("Requests")
    if samples.empty:
        say_in_place(axes, "the engine was not sampled at this point")
        return
    axes.plot(samples["time_s"], samples["running_reqs"], color=colours[2], label="running")
    axes.plot(samples["time_s"], samples["waiting_reqs"], color=colours[3], linestyle="--", label="waiting")
    axes.set_ylim(bottom=0)
    right = axes.twinx()
    usage = 100 * samples["kv_cache_usage_fraction"]
    right.plot(
        samples["time_s"], usage, color=colours[4], linestyle=":", linewidth=1.6, label="KV cache in use (right)"
    )
    right.set_ylim(0, 103)
    right.set_ylabel("KV cache (%)")
    right.grid(False)
