"""What the twin predicted beside what was measured, with its intervals, for points that it was not calibrated from."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from memgap.declared.figures import FigureSpec
from memgap.figures.footer import write_footer
from memgap.figures.style import GREY, model_looks, new_grid, say_in_place
from memgap.tables.inputs import Inputs

PANELS = {
    "output_throughput_tok_s": "Output tok/s",
    "itl_mean_ms": "Inter-token latency, mean (ms)",
    "itl_p99_ms": "Inter-token latency, 99th percentile (ms)",
    "ttft_mean_ms": "Time to first token, mean (ms)",
    "ttft_p99_ms": "Time to first token, 99th percentile (ms)",
    "e2e_mean_ms": "End-to-end latency, mean (ms)",
}
COLUMNS = ["model", "key", "load", "workload", "batch_cap", "rate_req_s", "repeat", "role", "quantity"]
NUMBERS = ["predicted", "low", "high", "measured", "inside", "extrapolates"]
FIGURE = FigureSpec(
    name="twin",
    title="The twin: predicted against measured",
    reads=("sweep.twin",),
    caption="""
Each marker is a point that the twin was not calibrated from: what it predicts over what was measured, with its 90 %
interval; on the line both are equal. Hollow markers are predictions beyond what the calibration covers (`extrapolates`
in the CSV), small dots the calibration points themselves. A panel's title has the median error and how many of the
points lie in their intervals. Points that preempted are among them. See docs/twin.md.
""",
)


def draw(inputs: Inputs) -> tuple[Figure, pd.DataFrame]:
    """Return the figure and the numbers in it."""
    twins = [one["rows"] for one in inputs.by_model("sweep.twin").values()]
    empty = pd.DataFrame(columns=[*COLUMNS, *NUMBERS])
    data = pd.concat(twins, ignore_index=True)[[*COLUMNS, *NUMBERS]] if twins else empty
    data = data[data["quantity"].isin(PANELS) & data["measured"].notna()].reset_index(drop=True)
    figure, panels = new_grid(len(PANELS))
    looks = model_looks(list(dict.fromkeys(data["model"])))
    for axes, (name, label) in zip(panels, PANELS.items(), strict=True):
        own = data[data["quantity"] == name]
        if own.empty:
            say_in_place(axes, "nothing was measured")
            continue
        _panel(axes, own, looks)
        rest = own[own["role"] == "held out"]
        error = (rest["predicted"] / rest["measured"] - 1).abs().median()
        axes.set_title(f"{label}\nmedian error {error:.1%}, {rest['inside'].mean():.0%} inside", fontsize="small")
        axes.set_xlabel("measured")
        axes.set_ylabel("predicted")
    if looks:
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=min(5, len(labels)), fontsize="x-small")
    held = data.drop_duplicates("key")["role"] == "held out"
    said = f"{held.sum()} points held out, {(~held).sum()} calibrated from; whole windows"
    write_footer(figure, [f"{said}; bars: 90 % intervals of the prediction"])
    return figure, data


def _panel(axes: Axes, own: pd.DataFrame, looks: object) -> None:
    assert isinstance(looks, dict)
    for model, (colour, marker) in looks.items():
        mine = own[own["model"] == model]
        train = mine[mine["role"] != "held out"]
        axes.plot(train["measured"], train["predicted"], ".", color=colour, markersize=3)
        held = mine[mine["role"] == "held out"]
        beyond = held["extrapolates"].notna() & (held["extrapolates"] != "")
        for part, face in ((held[~beyond], colour), (held[beyond], "none")):
            bars = [(part["predicted"] - part["low"]).clip(lower=0), (part["high"] - part["predicted"]).clip(lower=0)]
            axes.errorbar(
                part["measured"],
                part["predicted"],
                yerr=bars,
                linestyle="none",
                marker=marker,
                markersize=3.5,
                markerfacecolor=face,
                markeredgecolor=colour,
                ecolor=colour,
                elinewidth=0.6,
                label=model if face == colour else None,
            )
    ends = [own[["measured", "predicted"]].min().min(), own[["measured", "predicted"]].max().max()]
    axes.plot(ends, ends, color=GREY, linewidth=0.8)
    axes.set_xscale("log")
    axes.set_yscale("log")
