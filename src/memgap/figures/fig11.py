"""Figure 11: what the GPU's memory holds at B_opt, and what B_opt leaves free.

One bar a model: weights, the KV cache that B_opt needs with its margin, other (activations, graphs, context), and the
KV cache that is freed. One rule decides B_opt, the same as in figure 10; the published script has a second one here,
which also admits preempted runs.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from memgap.figures.inputs import FigureInputs
from memgap.figures.paper import LABEL, read_paper
from memgap.figures.provenance import write_provenance
from memgap.figures.style import ALERT, GREY, new_figure, palette, say_in_place

GIB = 2**30
PARTS = {
    "weights_bytes": "weights",
    "kv_with_margin_bytes": "KV cache that B_opt needs",
    "other_bytes": "other",
    "kv_freed_bytes": "KV cache freed",
}
PAPER_PARTS = {
    "model_weights": "weights_bytes",
    "kv_cache_at_b_opt": "kv_with_margin_bytes",
    "other": "other_bytes",
    "extra_kv_cache": "kv_freed_bytes",
}
COLUMNS = ["model", "b_opt", "part", "memory_gib", "share_fraction"]


def draw(inputs: FigureInputs) -> tuple[Figure, pd.DataFrame]:
    """Return the figure and the plotted numbers (one row a model and part; share of the device's memory)."""
    data = plotted(inputs.advice)
    figure, (axes,) = new_figure(1, width_in=5.4, height_in=3.4)
    models = list(inputs.advice)
    shift = 0.18 if inputs.paper_reference is not None else 0.0
    bottoms = dict.fromkeys(models, 0.0)
    for (part, label), colour in zip(PARTS.items(), palette(len(PARTS)), strict=True):
        own = data[data["part"] == part].set_index("model")["memory_gib"]
        heights = [float(own.get(model, 0.0)) for model in models]
        freed = part == "kv_freed_bytes"
        axes.bar(
            [place - shift for place in range(len(models))],
            heights,
            width=0.62 - 1.7 * shift,
            bottom=[bottoms[model] for model in models],
            color="white" if freed else colour,
            edgecolor=GREY if freed else colour,
            hatch="///" if freed else None,
            linewidth=0.6,
            label=label,
        )
        bottoms = {model: bottoms[model] + height for model, height in zip(models, heights, strict=True)}
    _name_freed(axes, data, models, bottoms, shift)
    if inputs.paper_reference is not None:
        _overlay_paper(axes, inputs, models)
    axes.set_xticks(range(len(models)), [_tick(model, inputs.advice[model]) for model in models])
    axes.set_ylabel("GPU memory (GiB)")
    axes.set_ylim(bottom=0)
    axes.grid(visible=False, axis="x")
    if data.empty:
        say_in_place(axes, "no memory is known for any model of this sweep")
    else:
        axes.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    write_provenance(figure, inputs.table)
    return figure, data


def plotted(advice: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return the parts of memory of all models that have an advice; without a GPU only the pool is known."""
    rows = []
    for model, one in advice.items():
        memory = one.get("memory") or {}
        device = memory.get("device_memory_bytes")
        for part in PARTS:
            if memory.get(part) is not None:
                share = memory[part] / device if device else float("nan")
                rows.append((model, one["b_opt"], part, memory[part] / GIB, share))
    return pd.DataFrame(rows, columns=COLUMNS)


def _tick(model: str, advice: Mapping[str, Any]) -> str:
    if advice["b_opt"] is None:
        return f"{model}\nno cap fits"
    known = (advice.get("memory") or {}).get("device_memory_bytes") is not None
    return f"{model}\nB_opt {advice['b_opt']}" + ("" if known else "\n(CPU: pool only)")


def _name_freed(axes: Axes, data: pd.DataFrame, models: list[str], tops: Mapping[str, float], shift: float) -> None:
    freed = data[data["part"] == "kv_freed_bytes"].dropna(subset=["share_fraction"])
    shares = dict(zip(freed["model"], freed["share_fraction"].astype(float), strict=True))
    for place, model in enumerate(models):
        if model in shares:
            text = f"{shares[model]:.0%} freed"
            axes.annotate(
                text, (place - shift, tops[model]), xytext=(0, 2), textcoords="offset points", ha="center", fontsize=7
            )


def _overlay_paper(axes: Axes, inputs: FigureInputs, models: list[str]) -> None:
    """Draw the paper's bars, outlined in grey, beside ours; its memory is in GB of a 64 GB card."""
    assert inputs.paper_reference is not None
    paper = read_paper(inputs.paper_reference, "fig11", ["model", "component", "memory_gb"])
    for place, model in enumerate(models):
        bottom = 0.0
        for component, part in PAPER_PARTS.items():
            own = paper[(paper["model"] == model) & (paper["component"] == component)]
            if own.empty:
                continue
            height = float(own["memory_gb"].iloc[0])
            axes.bar(
                place + 0.2,
                height,
                width=0.26,
                bottom=bottom,
                facecolor="none",
                edgecolor=ALERT if part == "kv_freed_bytes" else GREY,
                linewidth=0.8,
                label=LABEL if place == 0 and component == "model_weights" else None,
            )
            bottom += height
