"""The effect of each setting of a tuning, among configurations that are alike in all else."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from memgap.canonical import canonical_json
from memgap.figures.spec import FigureSpec
from memgap.figures.style import GREY, MARKERS, apply_style, palette, say_in_place
from memgap.figures.tuning_looks import WIDTH_IN, short, write_tuning_footer
from memgap.tables.inputs import Inputs
from memgap.tuning.speculation import segment

FIGURE = FigureSpec(
    name="factors",
    title="The effect of each setting of a tuning",
    reads=("tuning.results",),
    file="tuning/{group}.factors",
    of="tuning",
    category="Tuning",
    target="tuning",
    caption="""
Throughput by the value of each setting, among configurations that are alike in all else: a dot is a configuration
against the mean of those that differ from it in this setting only. See docs/tuning.md.
""",
)


def draw(inputs: Inputs) -> tuple[Figure, pd.DataFrame]:
    """Draw a panel a setting: throughput per GPU by its value, among configurations that are alike in all else.

    A dot is a configuration against the mean of those that differ from it in this setting only, the line the mean of
    the dots with this value.
    """
    table = inputs["tuning.results"]
    data = _effects(table)
    apply_style()
    names = list(dict.fromkeys(data["factor"]))
    columns = min(2, max(1, len(names)))
    rows = max(1, -(-len(names) // columns))
    figure = Figure(figsize=(WIDTH_IN, 0.9 + 2.3 * rows), layout="constrained")
    models = list(dict.fromkeys(data["model"]))
    for place, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, place + 1)
        own = data[data["factor"] == name]
        values = sorted(own["value"].unique(), key=_value_order)
        for number, model in enumerate(models):
            part = own[own["model"] == model]
            colour = palette(8)[number]
            x = part["value"].map(values.index) + 0.08 * (number - (len(models) - 1) / 2)
            axes.plot(x, part["relative_percent"], linestyle="none", marker=MARKERS[number], color=colour, alpha=0.45)
            means = part.groupby("value", sort=False)["relative_percent"].mean()
            at = sorted(means.index, key=_value_order)
            axes.plot([values.index(one) for one in at], [means[one] for one in at], color=colour, linewidth=1.4)
        axes.axhline(0, color=GREY, linewidth=0.8)
        axes.set_xticks(range(len(values)))
        axes.set_xticklabels([short(one, 16) for one in values], fontsize="x-small")
        axes.set_xlim(-0.4, len(values) - 0.6)
        axes.set_title(name)
    if not names:
        say_in_place(figure.add_subplot(1, 1, 1), "no setting was varied over two measured values")
    handles = [Line2D([], [], marker=MARKERS[n], color=palette(8)[n], label=model) for n, model in enumerate(models)]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(4, max(1, len(handles))), fontsize="x-small")
    figure.supylabel("Output tok/s per GPU, against those alike in all else (%)", fontsize="small")
    write_tuning_footer(figure, table)
    return figure, data


def _effects(table: pd.DataFrame) -> pd.DataFrame:
    rows = []
    measured = table[(table["blocks"].fillna(0) > 0) & table["server_args"].notna()]
    for (model, dataset, tier), own in measured.groupby(["model", "prompt_template_name", "tier"], sort=False):
        flags = [json.loads(text) for text in own["server_args"]]
        for name in dict.fromkeys(name for one in flags for name in one):
            for value, row, middle in _alike(own, flags, name):
                rows.append(
                    {
                        "model": model if table["prompt_template_name"].nunique() < 2 else f"{model}, {dataset}",
                        "tier": tier,
                        "factor": name,
                        "value": value,
                        "label": row["label"],
                        "output_tps_per_gpu": row["output_tps_per_gpu"],
                        "relative_percent": 100 * (float(row["output_tps_per_gpu"]) / middle - 1),
                    }
                )
    names = ["model", "tier", "factor", "value", "label", "output_tps_per_gpu", "relative_percent"]
    return pd.DataFrame(rows, columns=names)


def _alike(
    own: pd.DataFrame, flags: Sequence[Mapping[str, Any]], name: str
) -> Iterator[tuple[str, "pd.Series[Any]", float]]:
    """Yield (value, row, mean of its group) of the configurations that others differ from in the flag `name` only."""
    groups: dict[str, list[int]] = {}
    for place, one in enumerate(flags):
        others = canonical_json({flag: given for flag, given in one.items() if flag != name})
        groups.setdefault(others, []).append(place)
    for places in groups.values():
        if len({_value_text(flags[place].get(name)) for place in places}) < 2:
            continue
        middle = float(np.exp(np.log(own["output_tps_per_gpu"].iloc[places].astype(float)).mean()))
        for place in places:
            yield _value_text(flags[place].get(name)), own.iloc[place], middle


def _value_text(value: Any) -> str:
    if value is None:
        return "not given"
    if isinstance(value, dict):
        return segment(value)
    return str(value)


def _value_order(value: str) -> tuple[int, float, str]:
    try:
        return 1, float(value), value
    except ValueError:
        return 0 if value == "not given" else 2, 0.0, value
