"""Figure 6: a decode step by kernel class: attention (with KV-cache writes), matrix products, CPU time, other.

One panel a model, one bar a batch, 100 % being the wall time of an unprofiled decode step. CPU time is what is left of
that when all the time with any kernel is taken off: the GPU waits for the host. Kernel times come from a profiled run
of the same point. The published script finds classes by exact kernel names, so that matrix products of unclear name
are "other", and measures the window under the profiler, whose own cost counts as CPU time.
"""

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from memgap.figures.class_shares import ATTENTION, MATMUL, UNCLASSIFIED, class_ms, class_steps
from memgap.figures.inputs import FigureInputs
from memgap.figures.offline_notes import say_empty, write_notes
from memgap.figures.offline_points import batch_label
from memgap.figures.paper import LABEL, read_paper
from memgap.figures.style import new_grid, palette

PARTS = ("attention", "matmul", "cpu", "other")
LABELS = {"attention": "attention", "matmul": "matrix products", "cpu": "CPU time (GPU idle)", "other": "other kernels"}
PAPER_PARTS = {"attention": "attention", "matrix_multiplication": "matmul", "cpu_time": "cpu", "other_kernels": "other"}
COLUMNS = ["model", "batch", "part", "share_fraction", "step_ms", "of", "unclassified_fraction", "profiler"]
WALL, BUSY = "unprofiled step", "time with a kernel"


def draw(inputs: FigureInputs) -> tuple[Figure, pd.DataFrame]:
    """Return the figure and the plotted numbers (one row a model, batch and part; shares of a decode step)."""
    data = shares(inputs.offline.classes)
    models = list(dict.fromkeys(data["model"]))
    figure, panels = new_grid(len(models))
    for axes, model in zip(panels, models, strict=False):
        _draw_model(axes, data[data["model"] == model], inputs)
        axes.set_title(model)
    for axes in panels:
        axes.set_xlabel("Batch size (requests)", fontsize="small")
        axes.set_ylabel("Share of a decode step (%)", fontsize="small")
    if data.empty:
        say_empty(panels[0], "no point of this study has kernel classes")
    else:
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, fontsize=6, loc="outside upper center", ncols=5)
    write_notes(figure, inputs.offline, [_about(data)])
    return figure, data


def shares(classes: pd.DataFrame) -> pd.DataFrame:
    """Return one row a model, batch and part of a decode step with the columns of `COLUMNS`.

    `of` says what the shares are of: the unprofiled step, or, where that was not measured, the time with a kernel.
    """
    rows = []
    for (model, batch), own in class_steps(classes).groupby(["model", "batch"], sort=False):
        head = own.iloc[0].to_dict()
        parts = class_ms(own)
        busy = sum(parts.values())
        wall = head["wall_ms_per_step"]
        whole = busy if math.isnan(wall) else max(wall, busy)
        if not whole > 0:
            continue
        found = {name: sum(parts.get(kind, 0.0) for kind in kinds) for name, kinds in _KINDS.items()}
        found["cpu"] = math.nan if math.isnan(wall) else whole - busy
        found["other"] = busy - found["attention"] - found["matmul"]
        unknown = parts.get(UNCLASSIFIED, 0.0) / whole
        of = BUSY if math.isnan(wall) else WALL
        for part in PARTS:
            rows.append((model, batch, part, found[part] / whole, whole, of, unknown, head["profiler"]))
    data = pd.DataFrame(rows, columns=COLUMNS)
    places = {model: place for place, model in enumerate(dict.fromkeys(classes["model"]))}
    order = data.assign(place=data["model"].map(places)).sort_values(["place", "batch"], kind="stable")
    return order.drop(columns="place").reset_index(drop=True)


_KINDS = {"attention": ATTENTION, "matmul": MATMUL}


def _draw_model(axes: Axes, own: pd.DataFrame, inputs: FigureInputs) -> None:
    table = own.pivot_table(index="batch", columns="part", values="share_fraction", dropna=False).reindex(columns=PARTS)
    places = range(len(table))
    bottom = pd.Series(0.0, index=table.index)
    colours = dict(zip(PARTS, (*palette(3), (0.75, 0.75, 0.75)), strict=True))
    for part in PARTS:
        heights = 100 * table[part].fillna(0.0)
        axes.bar(places, heights, bottom=bottom, width=0.8, color=colours[part], label=LABELS[part], linewidth=0)
        bottom = bottom + heights
    axes.set_xticks(list(places), [batch_label(batch) for batch in table.index], fontsize="x-small")
    axes.set_ylim(0, 100)
    axes.grid(visible=False)
    if inputs.paper_reference is not None:
        _overlay_paper(axes, inputs, str(own["model"].iloc[0]), list(table.index))


def _overlay_paper(axes: Axes, inputs: FigureInputs, model: str, batches: list[float]) -> None:
    """Mark the published borders between the parts by dashes over our bars."""
    assert inputs.paper_reference is not None
    paper = read_paper(inputs.paper_reference, "fig06", ["model", "batch_size", "time_class", "decode_time_share_pct"])
    own = paper[(paper["model"] == model) & paper["batch_size"].isin(batches)]
    own = own.assign(part=own["time_class"].map(PAPER_PARTS))
    for number, (batch, parts) in enumerate(own.groupby("batch_size")):
        tops = parts.set_index("part")["decode_time_share_pct"].reindex(PARTS[:3]).cumsum()
        axes.plot(
            [batches.index(float(str(batch)))] * 3,
            tops,
            linestyle="none",
            marker="_",
            markersize=10,
            color="black",
            markeredgewidth=0.8,
            label=f"{LABEL}: borders" if number == 0 else None,
        )


def _about(data: pd.DataFrame) -> str:
    if data.empty:
        return ""
    worst = data.sort_values("unclassified_fraction", kind="stable").iloc[-1]
    notes = [
        f"kernels by {', '.join(sorted(set(data['profiler'])))}",
        f"unclassified kernels take at most {worst['unclassified_fraction']:.1%} of a step "
        f"({worst['model']}, batch {batch_label(worst['batch'])})",
    ]
    alone = data[data["of"] == BUSY].drop_duplicates(["model", "batch"])
    if len(alone):
        named = ", ".join(
            f"{model} batch {batch_label(batch)}" for model, batch in zip(alone["model"], alone["batch"], strict=True)
        )
        notes.append(f"no unprofiled step of {named}: shares of the time with a kernel")
    return "; ".join(notes)
