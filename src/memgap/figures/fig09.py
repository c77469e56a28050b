"""Figure 9: why the warps of the attention kernel wait over the length of prompt and output, at the smallest batch."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from memgap.figures.counters import ATTENTION, PLANNING, weighted_mean
from memgap.figures.offline_notes import say_empty, write_notes
from memgap.figures.offline_points import batch_label
from memgap.figures.paper import LABEL, read_paper
from memgap.figures.spec import FigureSpec
from memgap.figures.stalls import draw_stalls, legend_beside, named_reasons, stall_rows
from memgap.figures.style import new_figure
from memgap.tables.inputs import Inputs

VARIED = {"prompt_length": ("prompt_tokens", "output_tokens"), "output_length": ("output_tokens", "prompt_tokens")}
COLUMNS = [
    *("varied", "model", "attention_backend", "batch", "prompt_tokens", "output_tokens", "context_tokens", "kernels"),
    *("reason", "share_fraction"),
]
PAPER = ["varied", "model", "prompt_len_tokens", "output_len_tokens", "idle_cycles_pct"]
FIGURE = FigureSpec(
    name="fig09",
    title="Figure 9: why attention waits, over the length of prompt and output",
    reads=("study.offline", "study.counters"),
    paper=True,
    caption="""
As figure 8, at the smallest batch, in the last profiled decode step, over the length of the prompt and of the output,
with the context under each bar. The published figure averages the first and the last step, so that its output curve
mixes in a step whose context never changes.
""",
)


def draw(inputs: Inputs) -> tuple[Figure, pd.DataFrame]:
    """Return the figure and the plotted numbers (one row a length and stall reason)."""
    data = stalls_by_length(inputs["study.counters"])
    figure, panels = new_figure(2)
    reasons = named_reasons(data)
    for axes, (varied, (moving, fixed)) in zip(panels, VARIED.items(), strict=True):
        own = data[data["varied"] == varied]
        lengths = sorted(set(own[moving]))
        bars = [own[own[moving] == length] for length in lengths]
        what = moving.removesuffix("_tokens")
        axes.set_xlabel(f"{what.capitalize()} (tokens), below: context", fontsize="small")
        if own.empty:
            say_empty(axes, f"no point of this study varies the length of the {what}")
            continue
        labels = [f"{length:g}\n{bar['context_tokens'].iloc[0]:.0f}" for length, bar in zip(lengths, bars, strict=True)]
        draw_stalls(axes, bars, labels, reasons)
        head = own.iloc[0]
        other = fixed.removesuffix("_tokens")
        axes.set_title(
            f"{head['model']}, batch {batch_label(head['batch'])}, {other} {head[fixed]:g}", fontsize="small"
        )
        if inputs.paper_reference is not None:
            _overlay_paper(axes, inputs, varied, str(head["model"]), lengths)
    panels[0].set_ylabel("Share of warp latency (%)", fontsize="small")
    legend_beside(panels)
    write_notes(
        figure,
        inputs["study.offline"],
        ["counters by ncu; numbers: long scoreboard, the published figure's idle cycles"],
    )
    return figure, data


def stalls_by_length(counters: pd.DataFrame) -> pd.DataFrame:
    """Return the stall shares of the last profiled decode step over each length, with the other length fixed.

    The model, backend, batch and fixed length are those with the most lengths, at least two; smaller batches go first.
    """
    kernels = counters[(counters["phase"] == "decode") & (counters["kernel_class"] == ATTENTION)]
    kernels = kernels[~kernels["name"].astype(str).isin(PLANNING)]
    kernels = kernels.assign(attention_backend=kernels["attention_backend"].fillna(""))
    kernels = kernels[kernels["step"] == kernels.groupby("key", sort=False)["step"].transform("max")]
    rows = []
    for varied, (moving, fixed) in VARIED.items():
        setting = ["batch", "model", "attention_backend", fixed]
        counts = kernels.groupby(setting)[moving].nunique()
        counts = counts[counts >= 2]
        if counts.empty:
            continue
        best: dict[Any, Any] = (
            counts.reset_index().sort_values(moving, ascending=False, kind="stable").iloc[0][setting].to_dict()
        )
        own = kernels[(kernels[setting] == pd.Series(best)).all(axis=1)]
        for length, at in own.groupby(moving):
            head: dict[str, Any] = {
                **best,
                "varied": varied,
                moving: length,
                "context_tokens": weighted_mean(at, "context_tokens"),
            }
            rows += stall_rows(at, head)
    return pd.DataFrame(rows, columns=COLUMNS)


def _overlay_paper(axes: Axes, inputs: Inputs, varied: str, model: str, lengths: list[float]) -> None:
    assert inputs.paper_reference is not None
    paper = read_paper(inputs.paper_reference, "fig09", PAPER)
    column = "prompt_len_tokens" if varied == "prompt_length" else "output_len_tokens"
    own = paper[(paper["varied"] == varied) & (paper["model"] == model) & paper[column].isin(lengths)]
    if not own.empty:
        places = [lengths.index(length) for length in own[column]]
        label = f"{LABEL}: long scoreboard"
        axes.plot(places, own["idle_cycles_pct"], "_", color="black", markersize=16, label=label)
