"""Figure 11: what the GPU's memory holds at B_opt, and what B_opt leaves free."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from memgap.declared.figures import FigureSpec
from memgap.figures.footer import write_provenance
from memgap.figures.paper import LABEL, read_paper
from memgap.figures.style import ALERT, GREY, new_figure, palette, say_in_place
from memgap.tables.inputs import Inputs

GIB = 2**30
PARTS = {
    "weights_bytes": "weights",
    "kv_with_margin_bytes": "KV cache that B_opt needs",
    "other_bytes": "other",
    "kv_freed_bytes": "KV cache freed",
}
FREED = "kv_freed_bytes"
PAPER_PARTS = {
    "model_weights": "weights_bytes",
    "kv_cache_at_b_opt": "kv_with_margin_bytes",
    "other": "other_bytes",
    "extra_kv_cache": FREED,
}
COLUMNS = ["model", "b_opt", "part", "memory_gib", "share_fraction"]
NOT_ADVISED, UNKNOWN = "nothing advised: no cap fits", "memory not known"
FIGURE = FigureSpec(
    name="fig11",
    title="Figure 11: the GPU's memory at B_opt",
    reads=("sweep.points", "sweep.advice"),
    paper=True,
    caption="""
One bar a model: weights, the KV cache that B_opt needs with its margin, other (activations, graphs, context), and
what is freed, with its share of the card. A dotted bar says that nothing was advised, or that no memory is known;
under the axis stands which part is not. Corrected: one rule decides B_opt, the same as in figure 10; the published
script has a second one here, which also admits preempted runs.

The paper's bars, unfilled, are not like for like in "other". Ours is what the engine kept inside the share of the
card that it may use (`gpu-memory-utilization`, 0.9), so our bars end at that share. The paper's is the card less
weights and pool, so its bars end at the whole card, and the tenth that the engine was told to leave alone is most of
its "other". Its KV cache at B_opt is without a margin, and its B_opt is another rule's, for outputs of 390 tokens.
""",
)


def draw(inputs: Inputs) -> tuple[Figure, pd.DataFrame]:
    """Return the figure and the plotted numbers (one row a model and part; share of the device's memory)."""
    data = plotted(inputs.advice)
    figure, (axes,) = new_figure(1, width_in=5.4, height_in=3.4)
    models = list(inputs.advice)
    with_paper = inputs.paper_reference is not None
    shift, width = (0.18, 0.31) if with_paper else (0.0, 0.62)
    bottoms = dict.fromkeys(models, 0.0)
    for part, label in PARTS.items():
        own = data[data["part"] == part].set_index("model")["memory_gib"]
        heights = [float(own.get(model, 0.0)) for model in models]
        axes.bar(
            [place - shift for place in range(len(models))],
            heights,
            width=width,
            bottom=[bottoms[model] for model in models],
            color="white" if part == FREED else _colour(part),
            edgecolor=_colour(part),
            hatch="///" if part == FREED else None,
            linewidth=0.6,
            label=label,
        )
        bottoms = {model: bottoms[model] + height for model, height in zip(models, heights, strict=True)}
    _name_freed(axes, data, models, bottoms, shift)
    if not data.empty:
        _draw_what_is_missing(axes, inputs, data, shift, width)
    if with_paper:
        _overlay_paper(axes, inputs, models)
    axes.set_xticks(range(len(models)), [_tick(model, inputs) for model in models])
    axes.set_ylabel("GPU memory (GiB)")
    axes.set_ylim(bottom=0)
    axes.grid(visible=False, axis="x")
    if data.empty:
        say_in_place(axes, "no memory is known for any model of this sweep")
    else:
        figure.legend(fontsize="x-small", loc="outside right center")
    write_provenance(figure, inputs["sweep.points"])
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


def _colour(part: str) -> Any:
    return GREY if part == FREED else palette(len(PARTS))[list(PARTS).index(part)]


def _tick(model: str, inputs: Inputs) -> str:
    """Return a model's name, its B_opt, and which part of its memory is not known."""
    advice = inputs.advice[model]
    if advice["b_opt"] is None:
        return f"{model}\nno cap fits"
    memory = advice.get("memory") or {}
    lacking = [label for part, label in PARTS.items() if memory.get(part) is None]
    named = f"{model}\nB_opt {advice['b_opt']}"
    if len(lacking) == len(PARTS):
        return f"{named}\n({UNKNOWN})"
    if not _on_gpu(model, inputs):
        return f"{named}\n(CPU: pool only)"
    unknown = [*lacking, *(["card's size"] if memory.get("device_memory_bytes") is None else [])]
    return named + (f"\n(unknown: {', '.join(unknown)})" if unknown else "")


def _on_gpu(model: str, inputs: Inputs) -> bool:
    """Whether the model ran on a GPU, as its points say or its advice, which knows no GPU's memory on a CPU."""
    devices = inputs["sweep.points"].loc[inputs["sweep.points"]["model"] == model, "device"].dropna()
    memory = inputs.advice[model].get("memory") or {}
    return bool((devices == "cuda").any()) or memory.get("device_memory_bytes") is not None


def _draw_what_is_missing(axes: Axes, inputs: Inputs, data: pd.DataFrame, shift: float, width: float) -> None:
    """Draw an empty bar with a sentence where a model has no part of memory to show."""
    height = float(data.groupby("model")["memory_gib"].sum().max())
    for place, (model, advice) in enumerate(inputs.advice.items()):
        if model in set(data["model"]):
            continue
        x = place - shift
        axes.bar(x, height, width=width, color="none", edgecolor=ALERT, linestyle=":", linewidth=0.8)
        text = NOT_ADVISED if advice["b_opt"] is None else UNKNOWN
        axes.text(x, height / 2, text, rotation=90, ha="center", va="center", fontsize=7, color=ALERT)


def _name_freed(axes: Axes, data: pd.DataFrame, models: list[str], tops: Mapping[str, float], shift: float) -> None:
    freed = data[data["part"] == FREED].dropna(subset=["share_fraction"])
    shares = dict(zip(freed["model"], freed["share_fraction"].astype(float), strict=True))
    for place, model in enumerate(models):
        if model in shares:
            text = f"{shares[model]:.0%} freed"
            axes.annotate(
                text, (place - shift, tops[model]), xytext=(0, 2), textcoords="offset points", ha="center", fontsize=7
            )


def _overlay_paper(axes: Axes, inputs: Inputs, models: list[str]) -> None:
    """Draw the paper's bars beside ours, unfilled, in the colours of the same parts; its memory is of a 64 GB card."""
    assert inputs.paper_reference is not None
    paper = read_paper(inputs.paper_reference, "fig11", ["model", "component", "memory_gb"])
    named = False
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
                edgecolor=_colour(part),
                hatch="///" if part == FREED else None,
                linewidth=1.0,
            )
            bottom += height
        if bottom and not named:
            axes.bar(place + 0.2, 0.0, facecolor="none", edgecolor=GREY, label=f"unfilled: {LABEL}")
            named = True
