"""Figure 7: inside one decode step: attention and matrix products over time; see `step_timeline` for the curves."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from memgap.figures.offline_notes import say_empty, write_notes
from memgap.figures.offline_points import batch_label, ends, richest_model
from memgap.figures.paper import LABEL, read_paper
from memgap.figures.spec import FigureSpec
from memgap.figures.step_timeline import COUNTED, as_steps, one_step
from memgap.figures.style import GREY, apply_style, palette
from memgap.tables.inputs import Inputs
from memgap.tables.offline_study import offline_of

MODEL = "llama-2-7b"
"""The published figure's model, drawn where the study has it."""
LAYERS = 4
"""The window holds about that many layers, each with one attention kernel."""
CLASSES = {"attention": ("attention", "kv_write"), "matmul": ("matmul",)}
CURVES = {"dram_read_fraction": "DRAM read", "warps_in_flight_fraction": "warps in flight"}
COLUMNS = ["model", "batch", "start_ms", "end_ms", "kernel_class", "name", *COUNTED, "profiler"]
FIGURE = FigureSpec(
    name="fig07",
    title="Figure 7: inside one decode step",
    reads=("study.offline", "study.kernels", "study.counters"),
    paper=True,
    caption="""
About four layers from the middle of a step, at the smallest and the largest batch. Rectangles are kernels; the curves
are counters of the same kernels in another run, matched by name and order, zero between kernels. The published
samples of the whole GPU each last 0.1 ms, longer than many kernels.
""",
)


def draw(inputs: Inputs) -> tuple[Figure, pd.DataFrame]:
    """Return the figure and the kernels in the windows (start and end in ms from the window's beginning)."""
    timelines = inputs["study.kernels"]
    timelines = timelines[timelines["phase"] == "decode"]
    model = richest_model(timelines, MODEL)
    batches = ends(timelines[timelines["model"] == model])
    apply_style()
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    grid = figure.add_gridspec(2, max(len(batches), 1), height_ratios=[3, 1])
    drawn = []
    for place, batch in enumerate(batches):
        upper, lower = figure.add_subplot(grid[0, place]), figure.add_subplot(grid[1, place])
        window = _window(one_step(offline_of(inputs), str(model), batch))
        _draw_curves(upper, window, f"{model}, batch {batch_label(batch)}")
        _draw_kernels(lower, window)
        if inputs.paper_reference is not None:
            _tell_paper(upper, inputs, str(model), batch)
        drawn.append(window.assign(model=model, batch=batch))
    if not batches:
        say_empty(figure.add_subplot(grid[0, 0]), "no point of this study has a timeline of a decode step")
    data = pd.concat(drawn, ignore_index=True) if drawn else pd.DataFrame(columns=COLUMNS)
    counted = (
        "curves: ncu's counters of the same kernels in another run"
        if data[list(COUNTED)].notna().any(axis=None)
        else ""
    )
    shown = f"kernels by {', '.join(sorted(set(data['profiler'])))}" if len(data) else ""
    write_notes(figure, inputs["study.offline"], [shown, counted])
    return figure, data[COLUMNS]


def _window(step: pd.DataFrame) -> pd.DataFrame:
    """Return the kernels of some layers from the middle of a step, with start_ms and end_ms from the first one."""
    beats = step[step["kernel_class"] == "attention"]["start_ms"].tolist()
    first = max((len(beats) - LAYERS) // 2, 0)
    start = beats[first] if beats else 0.0
    end = beats[first + LAYERS] if len(beats) > first + LAYERS else float(step["start_ms"].max()) + 1e9
    inside = step[(step["start_ms"] >= start) & (step["start_ms"] < end)]
    begun = inside["start_ms"] - start
    return inside.assign(start_ms=begun, end_ms=begun + inside["duration_ms"])


def _draw_curves(axes: Axes, window: pd.DataFrame, title: str) -> None:
    axes.set_title(title, fontsize="small")
    axes.set_ylim(0, 140)
    axes.set_yticks(range(0, 101, 20))
    axes.set_ylabel("% of peak", fontsize="small")
    axes.set_xlim(0, float(window["end_ms"].max()))
    axes.tick_params(labelbottom=False)
    known = [column for column in COUNTED if window[column].notna().any()]
    for column, colour in zip(known, palette(len(COUNTED)), strict=False):
        times, values = as_steps(window, column)
        axes.plot(times, [100 * value for value in values], color=colour, linewidth=0.8, label=CURVES[column])
    if known:
        axes.legend(fontsize=5.5, loc="upper right")
    else:
        say_empty(axes, "no counters of these kernels")


def _draw_kernels(axes: Axes, window: pd.DataFrame) -> None:
    colours = dict(zip(("attention", "matmul", "other"), (*palette(2), (0.75, 0.75, 0.75)), strict=True))
    rows = {**CLASSES, "other": tuple(set(window["kernel_class"]) - {kind for one in CLASSES.values() for kind in one})}
    for place, (label, kinds) in enumerate(rows.items()):
        own = window[window["kernel_class"].isin(kinds)]
        bars = list(zip(own["start_ms"], own["duration_ms"], strict=True))
        axes.broken_barh(bars, (2 - place + 0.1, 0.8), facecolors=colours[label], linewidth=0)
    axes.set_yticks([2.5, 1.5, 0.5], list(rows), fontsize="x-small")
    axes.set_ylim(0, 3)
    axes.set_xlim(0, float(window["end_ms"].max()))
    axes.grid(visible=False)
    axes.set_xlabel("Time in the window (ms)", fontsize="small")


def _tell_paper(axes: Axes, inputs: Inputs, model: str, batch: float) -> None:
    """Draw the published samples of DRAM read in grey where model and end of the batches are the same."""
    assert inputs.paper_reference is not None
    paper = read_paper(
        inputs.paper_reference, "fig07", ["record_type", "model", "batch_size", "name", "start_ms", "value_pct"]
    )
    own = paper[(paper["record_type"] == "gpu_metric") & (paper["model"] == model)]
    own = own[own["name"] == "dram_read_bandwidth"]
    if own.empty:
        return
    published = min(own["batch_size"]) if batch == 1 else max(own["batch_size"])
    own = own[own["batch_size"] == published]
    label = f"{LABEL}, batch {batch_label(published)}: DRAM read"
    axes.plot(own["start_ms"], own["value_pct"], color=GREY, linestyle="--", linewidth=0.8, zorder=1, label=label)
    axes.legend(fontsize=5.5, loc="upper right")
