"""Figure 6: a decode step by kernel class: attention (with KV-cache writes), matrix products, CPU time, other."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from memgap.figures.class_shares import BUSY, PARTS, shares
from memgap.figures.offline_notes import say_empty, write_notes
from memgap.figures.offline_points import batch_label
from memgap.figures.paper import LABEL, read_paper
from memgap.figures.spec import FigureSpec
from memgap.figures.style import new_grid, palette
from memgap.tables.inputs import Inputs

LABELS = {"attention": "attention", "matmul": "matrix products", "cpu": "CPU time (GPU idle)", "other": "other kernels"}
PAPER_PARTS = {"attention": "attention", "matrix_multiplication": "matmul", "cpu_time": "cpu", "other_kernels": "other"}
FIGURE = FigureSpec(
    name="fig06",
    title="Figure 6: a decode step by kernel class",
    reads=("study.offline", "study.classes"),
    paper=True,
    caption="""
100 % is the wall time of an unprofiled step. Attention includes the writes to the KV cache. CPU time is what no
kernel fills. Corrected: the published script knows kernels by exact names, so that many matrix products are "other",
and takes its window under the profiler, whose own cost counts as CPU time. Unclassified kernels are part of "other",
and their largest share is printed. Without an unprofiled step the bars are shares of the time with a kernel, which
the line below says.
""",
)


def draw(inputs: Inputs) -> tuple[Figure, pd.DataFrame]:
    """Return the figure and the plotted numbers (one row a model, batch and part; shares of a decode step)."""
    data = shares(inputs["study.classes"])
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
    write_notes(figure, inputs["study.offline"], [_about(data)])
    return figure, data


def _draw_model(axes: Axes, own: pd.DataFrame, inputs: Inputs) -> None:
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


def _overlay_paper(axes: Axes, inputs: Inputs, model: str, batches: list[float]) -> None:
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
