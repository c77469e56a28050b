"""Figure 8: why the warps of attention kernels wait, at batch 1 and MAX, by model and attention backend."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from memgap.figures.counters import ATTENTION, decode_counters
from memgap.figures.offline_notes import say_empty, write_notes
from memgap.figures.offline_points import batch_label, ends
from memgap.figures.paper import LABEL, read_paper
from memgap.figures.spec import FigureSpec
from memgap.figures.stalls import draw_stalls, legend_beside, named_reasons, stall_rows
from memgap.figures.style import new_figure
from memgap.tables.inputs import Inputs

COLUMNS = ["attention_backend", "model", "batch", "batch_label", "kernels", "reason", "share_fraction"]
PAPER_BACKENDS = ("xformers", "flash")
FIGURE = FigureSpec(
    name="fig08",
    title="Figure 8: why attention waits",
    reads=("study.offline", "study.counters"),
    paper=True,
    caption="""
The latency between two issued instructions of a warp, in shares of its stall reasons, kernels weighted by duration,
at batch 1 and MAX. The lowest part, with its number, is the long scoreboard, waiting for data of a load: the
published "idle cycles" are this share alone, and it is no share of idle SMs. Kernels that load by TMA (FlashAttention
3) wait at barriers for their data, so that on Hopper the number can be low and memory still the reason: read it
beside figure 1.
""",
)


def draw(inputs: Inputs) -> tuple[Figure, pd.DataFrame]:
    """Return the figure and the plotted numbers (one row a backend, model, batch and stall reason)."""
    data = stalls_at_ends(inputs["study.counters"])
    backends = list(dict.fromkeys(data["attention_backend"]))
    figure, panels = new_figure(max(len(backends), 1), height_in=3.6)
    reasons = named_reasons(data)
    for axes, backend in zip(panels, backends, strict=False):
        own = data[data["attention_backend"] == backend]
        keys = list(dict.fromkeys(zip(own["model"], own["batch"], strict=True)))
        bars = [own[(own["model"] == model) & (own["batch"] == batch)] for model, batch in keys]
        labels = [f"{model}\nB {batch_label(batch)}" for model, batch in keys]
        draw_stalls(axes, bars, labels, reasons)
        axes.tick_params(axis="x", rotation=90 if len(keys) > 4 and len(backends) > 1 else 0)
        axes.set_title(f"Attention by {backend or 'an unknown backend'}", fontsize="small")
        if inputs.paper_reference is not None:
            _overlay_paper(axes, inputs, backend, bars)
    panels[0].set_ylabel("Share of warp latency (%)", fontsize="small")
    if data.empty:
        say_empty(panels[0], "no point of this study has stall counters of attention kernels")
    legend_beside(panels)
    write_notes(
        figure,
        inputs["study.offline"],
        ["counters by ncu; numbers: long scoreboard, the published figure's idle cycles"],
    )
    return figure, data


def stalls_at_ends(counters: pd.DataFrame) -> pd.DataFrame:
    """Return the stall shares of decode attention kernels at the smallest and largest batch of a model and backend."""
    kernels = decode_counters(counters)
    kernels = kernels[kernels["kernel_class"] == ATTENTION].assign(
        attention_backend=kernels["attention_backend"].fillna("")
    )
    rows = []
    for (backend, model), own in kernels.groupby(["attention_backend", "model"], sort=False):
        batches = ends(own)
        for batch, label in zip(batches, ("1" if batches[0] == 1 else "least", "max"), strict=False):
            head = {"attention_backend": backend, "model": model, "batch": batch, "batch_label": label}
            rows += stall_rows(own[own["batch"] == batch], head)
    return pd.DataFrame(rows, columns=COLUMNS)


def _overlay_paper(axes: Axes, inputs: Inputs, backend: str, bars: list[pd.DataFrame]) -> None:
    """Mark the published share of the same kind of backend by a dash."""
    assert inputs.paper_reference is not None
    paper = read_paper(
        inputs.paper_reference, "fig08", ["attention_backend", "model", "batch_label", "idle_cycles_pct"]
    )
    kind = next((name for name in PAPER_BACKENDS if name in backend.lower()), None)
    points = []
    for place, own in enumerate(bars):
        head = own.iloc[0]
        same = paper[(paper["attention_backend"] == kind) & (paper["model"] == head["model"])]
        same = same[same["batch_label"].astype(str) == head["batch_label"]]
        points += [(place, float(value)) for value in same["idle_cycles_pct"]]
    if points:
        axes.plot(*zip(*points, strict=True), "_", color="black", markersize=16, label=f"{LABEL}: long scoreboard")
