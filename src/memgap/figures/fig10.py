"""Figure 10: the trade-off behind B_opt: throughput over latency, and the throughput gain over the cap."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from memgap.advisor.report import advice_for
from memgap.declared.figures import FigureSpec
from memgap.figures.footer import write_provenance
from memgap.figures.marks import bars, parts
from memgap.figures.paper import overlay, read_paper
from memgap.figures.points import bars_note, failures
from memgap.figures.style import ALERT, GREY, legend_above, log2_axis, model_looks, new_figure, say_in_place
from memgap.tables.fate import GOOD, fate
from memgap.tables.inputs import Inputs

NUMBERS = [
    *("throughput_tok_s", "throughput_tok_s_low", "throughput_tok_s_high"),
    *("latency_ms", "latency_ms_low", "latency_ms_high", "gain_ratio"),
]
COLUMNS = ["model", "batch_cap", "repeats", "interval_source", *NUMBERS, "feasible", "is_b_opt", "reason", "averaging"]
PAPER = ["model", "batch_size", "mean_itl_ms", "total_token_throughput_tok_per_s", "throughput_gain_ratio"]
METRICS = {
    "itl": "inter-token latency",
    "tpot": "time per output token",
    "ttft": "time to first token",
    "e2e": "latency",
}
FIGURE = FigureSpec(
    name="fig10",
    title="Figure 10: the trade-off behind B_opt",
    reads=("sweep.points", "sweep.advice"),
    paper=True,
    caption="""
Left, throughput over latency, one marker a cap; the dashed line is the latency bound (SLO). Right, the throughput
gain T(B) / (B T(1)): 1 is perfect scaling, and the dashed line is epsilon, the least that a batch has to keep. B_opt,
circled, has the highest throughput among the caps left of the SLO and above epsilon. Bars on the left are the
intervals of throughput and latency: where one crosses the SLO, or the bars of two caps share a height, the advice may
change with the next measurement, and the advice says how often. The right panel has no bars. Hollow markers are of the
whole window, as in figure 2. A red x at the bottom is a cap without a measurement. When nothing fits, the right panel
says which bound is to blame.

Corrected: the published script draws requests/s on an axis that says tokens/s, takes the largest feasible cap instead
of the one with the highest throughput, and admits preempted runs.
""",
)


def draw(inputs: Inputs) -> tuple[Figure, pd.DataFrame]:
    """Return the figure and the plotted numbers (one row a model and cap, with the advisor's verdict)."""
    advised = _advice(inputs)
    data = plotted(advised, inputs["sweep.points"])
    figure, (left, right) = new_figure(2, height_in=3.6)
    drawn = data.dropna(subset=["throughput_tok_s", "latency_ms"])
    for model, (colour, marker) in model_looks(list(advised)).items():
        own = drawn[drawn["model"] == model]
        advice = advised[model]
        named = f"{model}: B_opt = {advice['b_opt'] or 'none'}"
        for part, face in parts(own, colour):
            look: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 4.5, "markerfacecolor": face}
            left.errorbar(
                part["latency_ms"],
                part["throughput_tok_s"],
                xerr=bars(part, "latency_ms", "latency_ms_low", "latency_ms_high"),
                yerr=bars(part, "throughput_tok_s", "throughput_tok_s_low", "throughput_tok_s_high"),
                capsize=2,
                elinewidth=1,
                **look,
            )
            right.plot(part["batch_cap"], part["gain_ratio"], label=named, **look)
            named = "_" + named
        _mark_b_opt(left, right, own, colour)
        if len(advised) == 1:
            _name_caps(left, own)
        if advice["rule"]["slo_ms"] is not None:
            left.axvline(advice["rule"]["slo_ms"], color=colour, linestyle="--", linewidth=1)
            left.plot([], [], color=GREY, linestyle="--", linewidth=1, label="SLO")
    for epsilon in sorted({float(one["rule"]["epsilon"]) for one in advised.values()}):
        _draw_epsilon(right, epsilon)
    _mark_failures(right, inputs)
    if inputs.paper_reference is not None:
        _overlay_paper(left, right, inputs)
    _label(left, right, advised, data)
    legend_above(figure, 5, right.get_legend_handles_labels()[1])
    for axes, ok in ((left, not drawn.empty), (right, not drawn.empty)):
        if not ok:
            say_in_place(axes, "no cap of this sweep could be judged")
    write_provenance(figure, inputs["sweep.points"], bars=bars_note(drawn))
    return figure, data


def _advice(inputs: Inputs) -> Mapping[str, Mapping[str, Any]]:
    """Return the advice by model; beside the paper's numbers it is made anew from averages over the whole window."""
    if inputs.paper_reference is None:
        return inputs.advice
    found = {}
    for model, advice in inputs.advice.items():
        rule, memory = advice["rule"], advice.get("memory", {})
        settings = {
            "latency": rule["latency"],
            "slo": rule.get("bound", {"ms": rule["slo_ms"]}),
            "epsilon": rule["epsilon"],
            "memory_margin": memory.get("margin", 0.0),
            "memory_limit_fraction": memory.get("limit_fraction", 1.0),
        }
        found[model] = advice_for(inputs["sweep.points"], model, settings)
    return found


def plotted(advice: Mapping[str, Mapping[str, Any]], points: pd.DataFrame) -> pd.DataFrame:
    """Return the advisor's candidates of all models as one table with the columns of `COLUMNS`."""
    rows = [
        {**candidate, "model": model, "is_b_opt": candidate["batch_cap"] == one["b_opt"]}
        for model, one in advice.items()
        for candidate in one["candidates"]
    ]
    kinds = points[fate(points) == GOOD].dropna(subset=["averaging"]).groupby(["model", "batch_cap"])["averaging"]
    named = {key: " and ".join(sorted(set(own))) for key, own in kinds}
    for row in rows:
        row["averaging"] = named.get((row["model"], row["batch_cap"]))
    return pd.DataFrame(rows, columns=COLUMNS).astype(dict.fromkeys(NUMBERS, float))


def _draw_epsilon(right: Axes, epsilon: float) -> None:
    right.axhline(epsilon, color=GREY, linestyle="--", linewidth=1)
    right.annotate(
        f"epsilon = {epsilon:g}",
        (0.0, epsilon),
        xycoords=right.get_yaxis_transform(),
        xytext=(3, 2),
        textcoords="offset points",
        fontsize="x-small",
        color=GREY,
    )


def _mark_failures(right: Axes, inputs: Inputs) -> None:
    """Mark the caps without a measurement at the bottom of the right panel."""
    failed = failures(inputs["sweep.points"])
    if not failed.empty:
        caps = sorted(set(failed["batch_cap"].dropna()))
        right.plot(
            caps, [0.02] * len(caps), marker="x", color=ALERT, linestyle="none", transform=right.get_xaxis_transform()
        )


def _mark_b_opt(left: Axes, right: Axes, own: pd.DataFrame, colour: object) -> None:
    for _, row in own[own["is_b_opt"].astype(bool)].iterrows():
        for axes, x, y in ((left, "latency_ms", "throughput_tok_s"), (right, "batch_cap", "gain_ratio")):
            axes.plot(
                row[x],
                row[y],
                marker="o",
                markersize=11,
                markerfacecolor="none",
                markeredgecolor=ALERT,
                linestyle="none",
            )
        right.axvline(row["batch_cap"], color=colour, linestyle=":", linewidth=1)


def _name_caps(axes: Axes, own: pd.DataFrame) -> None:
    for _, row in own.iterrows():
        axes.annotate(
            str(row["batch_cap"]),
            (row["latency_ms"], row["throughput_tok_s"]),
            xytext=(6, -9),
            textcoords="offset points",
            fontsize="x-small",
        )


def _overlay_paper(left: Axes, right: Axes, inputs: Inputs) -> None:
    assert inputs.paper_reference is not None
    paper = read_paper(inputs.paper_reference, "fig10", [*PAPER, "in_paper_figure"])
    paper = paper[paper["in_paper_figure"]]
    overlay(left, paper, "mean_itl_ms", "total_token_throughput_tok_per_s")
    overlay(right, paper, "batch_size", "throughput_gain_ratio")


def _label(left: Axes, right: Axes, advised: Mapping[str, Mapping[str, Any]], data: pd.DataFrame) -> None:
    metrics = {str(one["rule"]["latency"]) for one in advised.values()}
    metric, statistic = next(iter(metrics), "itl_mean_ms").removesuffix("_ms").rsplit("_", 1)
    left.set_xlabel(f"{statistic.capitalize()} {METRICS.get(metric, metric)} (ms)")
    left.set_ylabel("Throughput, prompt + output (tok/s)")
    right.set_xlabel("Batch cap B (requests)")
    right.set_ylabel("Throughput gain, T(B) / (B T(1))")
    left.set_xlim(left=0)
    left.set_ylim(bottom=0)
    right.set_ylim(bottom=0)
    log2_axis(right, [float(cap) for cap in data["batch_cap"]])
    nothing = [str(one["advice"]) for one in advised.values() if one["b_opt"] is None]
    if nothing:
        right.set_title("\n".join(nothing), fontsize=6, color=ALERT, wrap=True)
