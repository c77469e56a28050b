"""The figure of a lab: the panels that it declares, by arm and axis, with intervals over the blocks."""

from collections import Counter

import pandas as pd
from matplotlib.figure import Figure

from memgap.declared.figures import FigureSpec
from memgap.figures.footer import write_footer
from memgap.figures.lab_panels import Looks, draw_panel, panels_of
from memgap.figures.style import new_grid, say_in_place
from memgap.labs.names import UNTESTED
from memgap.tables.inputs import Inputs
from memgap.tables.provenance import source_line

FIGURE = FigureSpec(
    name="lab",
    title="A lab",
    reads=("lab.points", "lab.series", "lab.claims"),
    of="lab",
    file="labs/{group}",
    category="Labs",
    target="labs",
    plan="lab",
    caption="""
What lab {group} declares as its figure: values by arm and axis, each the mean over the blocks with its 95 % interval;
where panels divide by an arm, the ratio is taken within blocks. Grey is the reference measured once more. Values over
time are of the first block. An interval that ends above three times the largest mean is cut there.
""",
)

MOST_COLUMNS = 5


def draw(inputs: Inputs) -> tuple[Figure, pd.DataFrame]:
    """Return the figure and the plotted numbers."""
    plan = inputs.plan
    points, series = inputs["lab.points"], inputs["lab.series"]
    panels = panels_of(plan)
    figure, axes = new_grid(len(panels))
    good, looks = believed(points), Looks.of(plan)
    numbers = [draw_panel(one, panel, plan, good, series, looks) for one, panel in zip(axes, panels, strict=False)]
    if not panels:
        say_in_place(axes[0], "this lab declares no panel")
    write_legends(figure, plan["question"])
    counted = [f"{points['key'].nunique() if 'key' in points else 0} points in {plan['blocks']} blocks"]
    bars = "bars are 95 % intervals over the blocks" if plan["blocks"] > 1 else "one block, so no intervals"
    source = source_line(points, counted) if "source" in points else "nothing was measured"
    write_footer(figure, [source, bars, said(inputs["lab.claims"])], lost(points, inputs["lab.claims"]))
    return figure, pd.concat(numbers, ignore_index=True) if numbers else pd.DataFrame()


def write_legends(figure: Figure, title: str) -> None:
    """Write the title, and below it the names of the curves, once, or where panels have other ones in each of them."""
    named = [dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True)) for axes in figure.axes]
    several = [one for one in named if len(one) > 1]
    most = max(several, key=len, default={})
    if several and all(one.keys() <= most.keys() for one in named):
        look = {"ncols": min(len(most), MOST_COLUMNS), "fontsize": 7, "title_fontsize": "medium"}
        figure.legend(most.values(), most.keys(), title=title, loc="outside upper center", **look)
        return
    figure.suptitle(title, fontsize="medium")
    for axes, one in zip(figure.axes, named, strict=True):
        if len(one) > 1:
            axes.legend(one.values(), one.keys(), fontsize=6, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))


def believed(points: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of points that were measured and whose verdict does not say that they cannot be believed."""
    if "status" not in points:
        return points.iloc[:0]
    doubted = points["verdict"].eq("invalid") if "verdict" in points else pd.Series(False, index=points.index)
    return points[points["status"].eq("ok") & ~doubted]


def lost(points: pd.DataFrame, claims: pd.DataFrame) -> list[str]:
    """Return in words which arms have points that are not drawn, or why nothing is."""
    if believed(points).empty:
        return list(dict.fromkeys(claims.loc[claims["verdict"] == UNTESTED, "reason"].dropna()))[:1]
    gone = points.drop(believed(points).index)
    fates = gone["status"].where(gone["status"] != "ok", "invalid")
    counted = Counter(zip(gone["label"], fates, strict=True))
    told = "; ".join(f"{label}, {number} {fate}" for (label, fate), number in counted.items())
    return [f"not drawn: {told}"] if told else []


def said(claims: pd.DataFrame) -> str:
    """Return how many claims have which verdict."""
    counts = claims["verdict"].value_counts()
    return "claims: " + ", ".join(f"{number} {one}" for one, number in counts.items()) if len(counts) else ""
