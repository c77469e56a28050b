"""Memory over time while an engine loads and serves, split into weights, KV cache held and KV cache used."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from memgap.figures.comparison_looks import drawn, with_series, write_small_print
from memgap.figures.spec import FigureSpec
from memgap.figures.style import GREY, apply_style, palette, say_in_place
from memgap.tables.inputs import Inputs

MIB, GIB = 2**20, 2**30
PARTS = {
    "weights_bytes": "weights",
    "kv_used_bytes": "KV cache used: tokens of running requests",
    "kv_idle_bytes": "KV cache held but not used",
}
LINES = {
    "gpu_mem_used_bytes": ("GPU memory in use (NVML)", "-", "black"),
    "rss_bytes": ("resident memory of the process", "-", "black"),
    "reserved_bytes": ("torch: reserved", "--", GREY),
    "allocated_bytes": ("torch: allocated", ":", GREY),
}
"""Lines over the stack: a column, its label, line style and colour. On a GPU host memory is not drawn."""
FIGURE = FigureSpec(
    name="memory_over_time",
    title="Memory over time of each engine",
    reads=("comparison.engines", "comparison.kv", "comparison.memory"),
    target="hf_vs_vllm",
    category="Engines compared",
    caption="""
Memory of each engine from its start on, at the largest batch that all of them have. The line is what the system
counts: GPU memory in use, or the process's resident memory on a CPU. The areas split it from readiness on: weights,
keys and values of running requests, and the rest of what the KV cache holds. See docs/hf_vs_vllm.md.
""",
)


def draw(inputs: Inputs) -> tuple[Figure, pd.DataFrame]:
    """Return the figure and its samples: a row of panels for each engine at the largest batch that all of them have.

    Left everything from the engine's start on, right the KV cache alone while it serves.
    """
    engines = with_series(drawn(inputs["comparison.engines"]))
    chosen = common_points(engines)
    memory = inputs["comparison.memory"]
    data = memory[memory["key"].isin(chosen["key"])].merge(chosen[["key", "series"]], on="key")
    data = data.assign(kv_idle_bytes=(data["kv_held_bytes"] - data["kv_used_bytes"]).clip(lower=0))
    apply_style()
    number = max(1, len(chosen))
    figure = Figure(figsize=(9.0, 1.4 + 1.7 * number), layout="constrained")
    grid = figure.add_gridspec(number, 2, width_ratios=(1.5, 1))
    panels = [[figure.add_subplot(grid[row, column]) for column in (0, 1)] for row in range(number)]
    if chosen.empty:
        for axes in panels[0]:
            say_in_place(axes, "no point of this comparison was measured")
    for (left, right), point in zip(panels, chosen.to_dict("records"), strict=False):
        own = data[data["key"] == point["key"]]
        _everything(left, own)
        _kv_cache(right, own)
        for axes in (left, right):
            axes.set_ylim(bottom=0)
        left.set_title(f"{point['series']}, batch {point['batch_cap']}", fontsize="small")
        right.set_title("its KV cache", fontsize="small")
    if not chosen.empty:
        known: dict[str, Any] = {}
        for left, _ in panels:
            known |= {label: handle for handle, label in zip(*left.get_legend_handles_labels(), strict=True)}
        figure.legend(list(known.values()), list(known), loc="outside upper center", ncols=3, fontsize=6)
        for axes in panels[-1]:
            axes.set_xlabel("Time since the engine's start (s)")
    note = "the split is known from readiness (dashed) on"
    unseen = [str(one["series"]) for one in chosen.to_dict("records") if not _started(data, one["key"])]
    if unseen:
        note += f"; the start of {', '.join(unseen)} was not recorded"
    write_small_print(figure, inputs["comparison.engines"], note)
    return figure, data.reset_index(drop=True)


def _started(data: pd.DataFrame, key: str) -> bool:
    return bool((data["phase"][data["key"] == key] == "load").any())


def common_points(engines: pd.DataFrame) -> pd.DataFrame:
    """Return one point of each series, the first repeat, at the largest batch that all series have."""
    if engines.empty:
        return engines
    shared = set.intersection(*(set(own["batch_cap"]) for _, own in engines.groupby("series")))
    first = engines.sort_values("repeat", kind="stable")
    if shared:
        first = first[first["batch_cap"] == max(shared)]
    else:
        first = first.sort_values("batch_cap", ascending=False, kind="stable")
    return first.drop_duplicates("series").sort_index()


def _everything(axes: Axes, samples: pd.DataFrame) -> None:
    on_gpu = samples["gpu_mem_used_bytes"].notna().any()
    total = "gpu_mem_used_bytes" if on_gpu else "rss_bytes"
    unit = _unit(axes, float(samples[total].max()))
    served = samples[samples["phase"] == "inference"]
    layers = [served[column].fillna(0.0) / unit for column in PARTS]
    axes.stackplot(
        served["time_s"], *layers, colors=palette(len(PARTS)), labels=list(PARTS.values()), alpha=0.85, linewidth=0
    )
    for column, (label, style, colour) in LINES.items():
        held = samples.dropna(subset=[column])
        if len(held) and column in (total, "reserved_bytes", "allocated_bytes"):
            axes.plot(held["time_s"], held[column] / unit, color=colour, linewidth=1, linestyle=style, label=label)
    if len(served):
        axes.axvline(served["time_s"].iloc[0], color=GREY, linestyle="--", linewidth=0.8)


def _kv_cache(axes: Axes, samples: pd.DataFrame) -> None:
    served = samples[samples["phase"] == "inference"]
    colours = dict(zip(PARTS, palette(len(PARTS)), strict=True))
    unit = _unit(axes, float(served["kv_held_bytes"].max()))
    layers = [served[column].fillna(0.0) / unit for column in ("kv_used_bytes", "kv_idle_bytes")]
    axes.stackplot(
        served["time_s"], *layers, colors=[colours["kv_used_bytes"], colours["kv_idle_bytes"]], alpha=0.85, linewidth=0
    )


def _unit(axes: Axes, most_bytes: float) -> int:
    """Label the y axis in the unit that suits its largest value; returns the unit in bytes."""
    unit, name = (GIB, "GiB") if most_bytes > 4 * GIB else (MIB, "MiB")
    axes.set_ylabel(name)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    return unit
