"""Memory over time while an engine loads and serves, split into weights, KV cache held and KV cache used."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from memgap.figures.comparison_looks import drawn, with_series, write_small_print
from memgap.figures.inputs import FigureInputs
from memgap.figures.style import GREY, apply_style, palette, say_in_place

MIB, GIB = 2**20, 2**30
PARTS = (
    ("weights_bytes", "weights"),
    ("kv_used_bytes", "KV cache used: tokens of running requests"),
    ("kv_idle_bytes", "KV cache held but not used"),
)

LINES = {
    "gpu_mem_used_bytes": ("GPU memory in use (NVML)", "-", "black"),
    "rss_bytes": ("resident memory of the process", "-", "black"),
    "reserved_bytes": ("torch: reserved", "--", GREY),
    "allocated_bytes": ("torch: allocated", ":", GREY),
}
"""Lines over the stack: a column, its label, line style and colour. On a GPU host memory is not drawn."""


def draw(inputs: FigureInputs) -> tuple[Figure, pd.DataFrame]:
    """Return the figure, a panel for each engine at the largest batch that all of them have, and its samples."""
    engines = with_series(drawn(inputs.comparison.engines))
    chosen = common_points(engines)
    memory = inputs.comparison.memory
    data = memory[memory["key"].isin(chosen["key"])].merge(chosen[["key", "series"]], on="key")
    data = data.assign(kv_idle_bytes=(data["kv_held_bytes"] - data["kv_used_bytes"]).clip(lower=0))
    apply_style()
    number = max(1, len(chosen))
    figure = Figure(figsize=(7.2, 1.0 + 1.9 * number), layout="constrained")
    panels = [figure.add_subplot(number, 1, place + 1) for place in range(number)]
    if chosen.empty:
        say_in_place(panels[0], "no point of this comparison was measured")
    for axes, point in zip(panels, chosen.to_dict("records"), strict=False):
        _panel(axes, data[data["key"] == point["key"]], f"{point['series']}, batch {point['batch_cap']}")
    if not chosen.empty:
        panels[0].legend(fontsize=5.5, loc="upper left")
        panels[-1].set_xlabel("Time since the engine's start (s)")
    write_small_print(figure, inputs.comparison.engines, "the split is known from readiness (dashed) on")
    return figure, data.reset_index(drop=True)


def common_points(engines: pd.DataFrame) -> pd.DataFrame:
    """Return one point of each series, the first repeat, at the largest batch that all series have."""
    if engines.empty:
        return engines
    batches = [set(own["batch_cap"]) for _, own in engines.groupby("series")]
    shared = set.intersection(*batches)
    first = engines.sort_values("repeat", kind="stable")
    if shared:
        first = first[first["batch_cap"] == max(shared)]
    else:
        first = first.sort_values("batch_cap", ascending=False, kind="stable")
    return first.drop_duplicates("series").sort_index()


def _panel(axes: Axes, samples: pd.DataFrame, title: str) -> None:
    on_gpu = samples["gpu_mem_used_bytes"].notna().any()
    total = "gpu_mem_used_bytes" if on_gpu else "rss_bytes"
    unit, name = (GIB, "GiB") if samples[total].max() > 4 * GIB else (MIB, "MiB")
    served = samples[samples["phase"] == "inference"]
    layers = [served[column].fillna(0.0) / unit for column, _ in PARTS]
    labels = [label for _, label in PARTS]
    axes.stackplot(served["time_s"], *layers, colors=palette(len(PARTS)), labels=labels, alpha=0.85, linewidth=0)
    for column, (label, style, colour) in LINES.items():
        held = samples.dropna(subset=[column])
        if len(held) and column in (total, "reserved_bytes", "allocated_bytes"):
            axes.plot(held["time_s"], held[column] / unit, color=colour, linewidth=1, linestyle=style, label=label)
    if len(served):
        axes.axvline(served["time_s"].iloc[0], color=GREY, linestyle="--", linewidth=0.8)
    axes.set_title(title, fontsize="small")
    axes.set_ylabel(name)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(5))
