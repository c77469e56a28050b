"""Figure 13: what runs on the GPU when, for one server, replicas, and replicas under MPS."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from memgap.figures.footer import write_provenance
from memgap.figures.paper import read_paper
from memgap.figures.spec import FigureSpec
from memgap.figures.style import GREY, new_rows, palette, say_in_place
from memgap.profiling.overlap import clip, shares
from memgap.tables.inputs import Inputs
from memgap.tables.kernels import KERNELS, NVML

WINDOW_S = (0.020, 0.032)
"""What is drawn of the record: as long as the published figure's window, about two decode steps of one server."""
SHARES_S = (0.005, 0.050)
"""Shares are taken over this part of the record, after the profiler's start."""
COLUMNS = ["experiment", "replicas", "mps", "replica", "start_ms", "end_ms", "source"]
FIGURE = FigureSpec(
    name="fig13",
    title="Figure 13: kernels over time",
    reads=("sweep.points", "sweep.kernels"),
    paper=True,
    caption="""
One panel for one server, replicas, replicas under MPS; one row a replica, one bar a kernel. The title gives the share
of 45 ms in which any kernel ran, and in which kernels of two replicas were open. Without MPS the GPU switches between
the processes, and a kernel's span goes on while the other has its slice: there nothing runs at once. The kernels come
from the engines' own profiler (torch.profiler, CUPTI), switched on in all replicas for a moment of the load
(`profile` in the configuration); it slows the host down, so busy shares are a lower bound. Where no profiler ran,
NVML's utilisation is drawn, and the title says so.
""",
)


def draw(inputs: Inputs) -> tuple[Figure, pd.DataFrame]:
    """Return the figure and the drawn intervals (start and end in ms from the beginning of the window)."""
    timelines = list(inputs["sweep.kernels"].groupby("key", sort=False))
    figure, panels = new_rows(max(len(timelines), 1))
    drawn = []
    for axes, (_, own) in zip(panels, timelines, strict=False):
        drawn.append(_draw_timeline(axes, own))
    if not timelines:
        say_in_place(panels[0], "no point of this sweep has a timeline")
    if inputs.paper_reference is not None:
        _tell_paper(panels, inputs)
    panels[-1].set_xlabel("Time (ms)")
    write_provenance(figure, inputs["sweep.points"], rates=False)
    data = pd.concat(drawn, ignore_index=True) if drawn else pd.DataFrame(columns=COLUMNS)
    return figure, data[COLUMNS]


def _draw_timeline(axes: Axes, own: pd.DataFrame) -> pd.DataFrame:
    head = own.iloc[0].to_dict()
    start_s, end_s = WINDOW_S if head["source"] == KERNELS else (0.0, float(own["start_s"].max()))
    replicas = sorted(set(own["replica"]))
    colours = palette(max(len(replicas), 1))
    rows = []
    for place, replica in enumerate(replicas):
        mine = own[own["replica"] == replica]
        spans = np.column_stack([mine["start_s"], mine["start_s"] + mine["duration_s"]])
        inside = clip(spans, start_s, end_s) - start_s
        bars = [(start * 1e3, (end - start) * 1e3) for start, end in inside]
        if head["source"] == KERNELS:
            axes.broken_barh(bars, (place + 0.1, 0.8), facecolors=colours[place], linewidth=0)
        else:
            axes.step(mine["start_s"] * 1e3, mine["busy_fraction"], where="post", color=colours[place])
        rows.append(pd.DataFrame({"replica": replica, "start_ms": inside[:, 0] * 1e3, "end_ms": inside[:, 1] * 1e3}))
    axes.set_xlim(0, (end_s - start_s) * 1e3)
    axes.grid(visible=False)
    if head["source"] == KERNELS:
        axes.set_ylim(0, len(replicas))
        axes.set_yticks([place + 0.5 for place in range(len(replicas))], [f"replica {one}" for one in replicas])
    else:
        axes.set_ylabel("busy (NVML)")
    axes.set_title(f"{_named(head)}: {_shares(own)}", fontsize="small", loc="left")
    found = pd.concat(rows, ignore_index=True)
    return found.assign(**{name: head[name] for name in ("experiment", "replicas", "mps", "source")})


def _named(head: Mapping[Any, Any]) -> str:
    if head["replicas"] == 1:
        return "one server"
    return f"{head['replicas']} replicas" + (" under MPS" if head["mps"] == "yes" else ", time-sliced")


def _shares(own: pd.DataFrame) -> str:
    if own["source"].iloc[0] == NVML:
        return f"GPU busy {own['busy_fraction'].mean():.0%} by NVML (overlap is not known without a profiler)"
    spans = {
        int(str(replica)): np.column_stack([mine["start_s"], mine["start_s"] + mine["duration_s"]])
        for replica, mine in own.groupby("replica")
    }
    found = shares(spans, *SHARES_S)
    text = f"GPU busy {found['busy_fraction']:.1%}"
    if len(spans) == 1:
        return text
    at_once = f"{found['overlap_fraction']:.1%}"
    if own["mps"].iloc[0] == "yes":
        return f"{text}, kernels of two at once {at_once}"
    return f"{text}, spans of two open {at_once}"  # a kernel's span goes on while the other has its slice


def _tell_paper(panels: list[Axes], inputs: Inputs) -> None:
    """Write the published shares beside the panels of the same configuration."""
    assert inputs.paper_reference is not None
    paper = read_paper(inputs.paper_reference, "fig13_summary", ["config", "gpu_busy_pct", "overlap_pct"])
    for axes, config in zip(panels, ("no_replication", "2_replicas", "2_replicas_mps"), strict=False):
        own = paper[paper["config"] == config]
        if not own.empty:
            busy, overlap = own["gpu_busy_pct"].iloc[0], max(own["overlap_pct"].iloc[0], 0.0)
            text = f"paper: busy {busy:.0f} %, overlap {overlap:.0f} %"
            axes.set_title(text, fontsize="x-small", loc="right", color=GREY)
