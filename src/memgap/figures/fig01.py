"""Figure 1: attention and matrix products of a decode step under the GPU's roofs, a point a batch."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from memgap.declared.figures import FigureSpec
from memgap.figures.offline_notes import say_empty, write_notes
from memgap.figures.paper import LABEL, read_paper
from memgap.figures.style import GREY, halo, legend_above, model_looks, new_grid
from memgap.tables.counters import ATTENTION, rooflines
from memgap.tables.inputs import Inputs
from memgap.tables.offline_points import batch_label

X, Y, ANALYTIC = "intensity_flop_byte", "flop_s", "analytic_intensity_flop_byte"
ROOFS = {"peak_flop_tensor_fp16_s": "FP16 tensor, dense", "peak_flop_fp32_s": "FP32"}
PAPER = ["series", "model", "batch_size", "arithmetic_intensity_flop_per_byte", "performance_flop_per_s"]
FIGURE = FigureSpec(
    name="fig01",
    title="Figure 1: the roofline of attention and matrix products",
    reads=("study.offline", "study.counters"),
    paper=True,
    caption="""
x is the FLOP of all kernels of a class over their DRAM traffic, y the same FLOP over their time, both counted by ncu
in decode steps. A marker, one a batch, far under the roofs is held back by neither memory nor compute: too little
work, or latency. Look whether attention stays left of the ridge at every batch while matrix products move right.
Hollow markers stand at the intensity of the model's shape: KV cache read once, weights read once. A filled marker far
from its hollow one means that caches help, that the kernel pads its tiles, or that the counter misses something.

Corrected: the published script counts FP32 only, which leaves out nearly all work of matrix products; labels the FP64
roof as single precision; joins two different kernels to one line; draws batch 1 and MAX only. Here tensor cores, FP16
and FP64 count, the roofs are dense FP16 tensor and FP32, all kernels of a class count, and every batch is drawn.
""",
)


def draw(inputs: Inputs) -> tuple[Figure, pd.DataFrame]:
    """Return the figure and the plotted numbers (one row a model, series and batch; FLOP/s, bytes/s, FLOP/byte)."""
    data = rooflines(inputs["study.counters"])
    data.insert(0, "series", _series(data))
    models = list(dict.fromkeys(data["model"]))
    figure, panels = new_grid(len(models))
    looks = model_looks(sorted(set(data["series"])))
    for axes, model in zip(panels, models, strict=False):
        own = data[data["model"] == model]
        _draw_roofs(axes, own)
        if inputs.paper_reference is not None:
            _overlay_paper(axes, inputs, model)
        for series, line in own.groupby("series", sort=False):
            _draw_series(axes, line, str(series), *looks[str(series)])
        axes.set_title(model)
    for axes in panels:
        axes.set_xlabel("Arithmetic intensity (FLOP/byte of DRAM traffic)", fontsize="small")
        axes.set_ylabel("FLOP/s", fontsize="small")
    legend_above(figure)
    if data.empty:
        say_empty(panels[0], "no point of this study has kernel counters")
    hollow = "hollow markers: intensity from the model's shape" if data[ANALYTIC].notna().any() else ""
    write_notes(
        figure,
        inputs["study.offline"],
        ["counters by ncu, padding of tiles included; roofs at the kernels' clock; every marker is a batch", hollow],
    )
    return figure, data


def _series(data: pd.DataFrame) -> list[str]:
    kinds = zip(data["kernel_class"], data["attention_backend"], strict=True)
    return [f"attention ({backend or 'backend unknown'})" if kind == ATTENTION else "matmul" for kind, backend in kinds]


def _draw_roofs(axes: Axes, own: pd.DataFrame) -> None:
    """Draw the memory roof's slope up to each compute roof; the axes span the points with a margin."""
    xs = pd.concat([own[X], own[ANALYTIC]]).dropna()
    peaks = {name: float(own[name].median()) for name in (*ROOFS, "peak_dram_bytes_s")}
    bandwidth = peaks["peak_dram_bytes_s"]
    low, high = float(xs[xs > 0].min()) / 3, float(xs.max()) * 3
    highest = np.nanmax([peaks[name] for name in ROOFS]) if any(peaks[name] > 0 for name in ROOFS) else np.nan
    if bandwidth > 0 and highest > 0:
        high = max(high, 3 * highest / bandwidth)
    for (name, label), dashes in zip(ROOFS.items(), ("-", "--"), strict=True):
        if peaks[name] > 0:
            start = peaks[name] / bandwidth if bandwidth > 0 else low
            axes.plot([max(start, low), high], [peaks[name]] * 2, color="black", linewidth=1, linestyle=dashes)
            axes.annotate(
                f"{label}: {peaks[name] / 1e12:.0f} TFLOP/s",
                (high, peaks[name]),
                xytext=(-2, 2),
                va="bottom",
                textcoords="offset points",
                ha="right",
                fontsize=6,
                path_effects=halo(),
            )
    if bandwidth > 0:
        end = highest / bandwidth if highest > 0 else high
        axes.plot([low, end], [low * bandwidth, end * bandwidth], color="black", linewidth=1)
        axes.annotate(
            f"DRAM: {bandwidth / 1e12:.2f} TB/s",
            (0.02, 0.97),
            xycoords="axes fraction",
            va="top",
            fontsize=6,
        )
        axes.axvspan(low, end, color=GREY, alpha=0.08, linewidth=0)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(low, high)
    if highest > 0:
        axes.set_ylim(top=3 * highest)


def _draw_series(axes: Axes, line: pd.DataFrame, label: str, colour: object, marker: str) -> None:
    axes.plot(line[X], line[Y], color=colour, marker=marker, markersize=4, linewidth=1, label=label)
    axes.plot(line[X], line[Y], color=colour, marker=marker, markersize=4, linestyle="none", zorder=4)
    axes.plot(
        line[ANALYTIC],
        line[Y],
        linestyle="none",
        marker=marker,
        markersize=4,
        markerfacecolor="none",
        markeredgecolor=colour,
        alpha=0.7,
    )
    attention = (line["kernel_class"] == ATTENTION).all()  # its labels go left, those of matrix products right
    for place in dict.fromkeys((0, len(line) - 1)):
        row = line.iloc[place]
        axes.annotate(
            f"B {batch_label(row['batch'])}",
            (row[X], row[Y]),
            xytext=(-5, -4) if attention else (5, -7),
            ha="right" if attention else "left",
            textcoords="offset points",
            fontsize=6,
            path_effects=halo(),
        )


def _overlay_paper(axes: Axes, inputs: Inputs, model: str) -> None:
    """Draw the published series of a model in grey; they count FP32 work only."""
    assert inputs.paper_reference is not None
    paper = read_paper(inputs.paper_reference, "fig01", PAPER)
    for place, (_, own) in enumerate(paper[paper["model"] == model].groupby("series", sort=False)):
        axes.plot(
            own["arithmetic_intensity_flop_per_byte"],
            own["performance_flop_per_s"],
            color=GREY,
            linestyle="--",
            marker=".",
            markersize=3,
            linewidth=0.8,
            zorder=1,
            label=f"{LABEL}, FP32 only" if place == 0 else None,
        )
