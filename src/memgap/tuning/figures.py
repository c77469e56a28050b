"""The figures of a tuning: speed-up bars with intervals, throughput over latency, and the effect of each setting."""

import json
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from memgap.canonical import canonical_json
from memgap.config.load import known
from memgap.errors import UserError
from memgap.figures.style import ALERT, GREY, MARKERS, apply_style, palette, say_in_place

BAR_IN, PANEL_IN, WIDTH_IN = 0.26, 0.75, 7.2
LABEL_CHARACTERS = 40
COLOURS: Mapping[str, int] = {"winner": 2, "running": 0, "reference": 7, "beaten": 7, "screened": 7, "equal": 7}
"""State -> colour of the palette."""
WORDS: Mapping[str, str] = {
    "winner": "winner",
    "running": "not told apart",
    "beaten": "left early",
}
Drawn = tuple[Figure, pd.DataFrame]


def draw(name: str, table: pd.DataFrame) -> Drawn:
    """Return a figure of a tuning's table of configurations and the numbers in it; raises UserError."""
    known(name, FIGURES, "figure", "plot")
    return FIGURES[name](table)


def read_configurations(path: str) -> pd.DataFrame:
    """Return a table that `memgap.tuning.results.configuration_rows` made; raises UserError where it is none."""
    try:
        table = pd.read_csv(path)
        table[["tier", "label", "state", "objective_gain"]]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: no table of a tuning ({error}); let Snakemake make it again.") from error
    return table


def speedup(table: pd.DataFrame) -> Drawn:
    """Draw a panel a race: the gain of each configuration over the reference, with its simultaneous interval."""
    data = table[
        ["model", "prompt_template_name", "tier", "label", "state", "is_reference", "blocks", "comment"]
    ].copy()
    for column in ("objective_gain", "objective_gain_low", "objective_gain_high"):
        data[f"{column}_percent"] = 100 * table[column].astype(float)
    apply_style()
    panels = list(data.groupby(["model", "prompt_template_name", "tier"], sort=False))
    heights = [max(2, int((one["state"] != "refused").sum())) * BAR_IN + PANEL_IN for _, one in panels]
    figure = Figure(figsize=(WIDTH_IN, sum(heights) + 0.9), layout="constrained")
    grid = figure.add_gridspec(len(panels), 1, height_ratios=heights)
    several = data["prompt_template_name"].nunique() > 1
    for place, ((model, dataset, tier), own) in enumerate(panels):
        axes = figure.add_subplot(grid[place])
        _bars(axes, own)
        axes.set_title(f"{model}{f', {dataset}' if several else ''}: {tier}")
    figure.axes[-1].set_xlabel("Gain over the reference of the race (%); lines are simultaneous intervals")
    handles = [
        Line2D([], [], color=palette(8)[COLOURS[state]], linewidth=5, label=text) for state, text in WORDS.items()
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=3, fontsize="x-small")
    _provenance(figure, table)
    return figure, data


def _bars(axes: Axes, own: pd.DataFrame) -> None:
    own = own[own["state"] != "refused"]
    order = own.assign(gain=own["objective_gain_percent"].fillna(-np.inf).where(~own["is_reference"].astype(bool), 0.0))
    order = order.sort_values("gain", kind="stable").reset_index(drop=True)
    low, high = order["objective_gain_low_percent"], order["objective_gain_high_percent"]
    shown = order["objective_gain_percent"]
    least = min([0.0, *shown.dropna(), *low.dropna().clip(lower=shown.min() - 20 if shown.notna().any() else None)])
    most = max([1.0, *shown.dropna(), *high.dropna().clip(upper=(shown.max() if shown.notna().any() else 0) + 20)])
    for place, (_, row) in enumerate(order.iterrows()):
        gain, colour = row["objective_gain_percent"], palette(8)[COLOURS.get(row["state"], 7)]
        if row["is_reference"]:
            axes.plot([0], [place], marker="|", color="black", markersize=9)
        elif pd.isna(gain):
            axes.text(
                0, place, f" {row['state']}: {_short(str(row['comment']), 90)}", va="center", fontsize=6, color=ALERT
            )
        else:
            axes.barh(place, gain, height=0.62, color=colour)
            if pd.notna(row["objective_gain_low_percent"]):
                axes.plot(
                    [row["objective_gain_low_percent"], row["objective_gain_high_percent"]],
                    [place, place],
                    color="black",
                    linewidth=1,
                )
    axes.set_xlim(least * 1.08, most * 1.08)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(order)))
    axes.set_yticklabels([_tick(row) for _, row in order.iterrows()], fontsize="x-small")
    axes.set_ylim(-0.6, len(order) - 0.4)
    axes.grid(axis="y", visible=False)


def _tick(row: "pd.Series[Any]") -> str:
    return f"{_short(str(row['label']), LABEL_CHARACTERS)}  ({int(row['blocks'])})"


def pareto(table: pd.DataFrame) -> Drawn:
    """Draw throughput per GPU over the mean time per output token, a panel a model; the default and winner marked."""
    columns = ["model", "prompt_template_name", "tier", "label", "state", "is_default", "tpot_mean_ms"]
    data = table[table["blocks"].fillna(0) > 0][[*columns, "output_tps_per_gpu"]].copy()
    data["on_front"] = False
    groups = list(data.groupby(["model", "prompt_template_name"], sort=False))
    apply_style()
    figure = Figure(figsize=(WIDTH_IN, 0.9 + 3.1 * max(1, -(-len(groups) // 2))), layout="constrained")
    columns_count = min(2, max(1, len(groups)))
    several = data["prompt_template_name"].nunique() > 1
    tiers = list(dict.fromkeys(data["tier"]))
    for place, ((model, dataset), own) in enumerate(groups):
        axes = figure.add_subplot(-(-len(groups) // columns_count), columns_count, place + 1)
        front = _front(own)
        data.loc[front, "on_front"] = True
        line = own.loc[front].sort_values("tpot_mean_ms")
        axes.plot(line["tpot_mean_ms"], line["output_tps_per_gpu"], color=GREY, linewidth=1, linestyle="--")
        for number, tier in enumerate(tiers):
            part = own[own["tier"] == tier]
            axes.plot(
                part["tpot_mean_ms"],
                part["output_tps_per_gpu"],
                linestyle="none",
                marker=MARKERS[number],
                color=palette(8)[number],
                markersize=5,
            )
        _ring(axes, own[own["is_default"].astype(bool)], "black", "s", 11)
        last = own[(own["state"] == "winner") & (own["tier"] == tiers[-1])]
        _ring(axes, last, ALERT, "o", 11)
        for _, row in line.iterrows():
            axes.annotate(
                _short(str(row["label"]), 30),
                (row["tpot_mean_ms"], row["output_tps_per_gpu"]),
                xytext=(5, -8),
                textcoords="offset points",
                fontsize=6,
            )
        axes.margins(x=0.2, y=0.12)
        axes.set_title(f"{model}{f', {dataset}' if several else ''}")
        axes.set_xlabel("Mean time per output token (ms)")
        axes.set_ylabel("Output tok/s per GPU")
    if not groups:
        say_in_place(figure.add_subplot(1, 1, 1), "nothing was measured")
    handles: list[Any] = [
        Line2D([], [], linestyle="none", marker=MARKERS[n], color=palette(8)[n], label=f"tier {tier}")
        for n, tier in enumerate(tiers)
    ]
    handles += [
        Line2D(
            [], [], linestyle="none", marker="s", markersize=9, markerfacecolor="none", color="black", label="default"
        ),
        Line2D([], [], linestyle="none", marker="o", markersize=9, markerfacecolor="none", color=ALERT, label="winner"),
        Line2D([], [], linestyle="--", color=GREY, label="best trade-offs"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(6, len(handles)), fontsize="x-small")
    _provenance(figure, table)
    return figure, data


def _front(own: pd.DataFrame) -> list[Any]:
    """Return the rows that no other one beats in both throughput and latency."""
    kept = []
    for place, row in own.iterrows():
        better = (own["output_tps_per_gpu"] >= row["output_tps_per_gpu"]) & (own["tpot_mean_ms"] <= row["tpot_mean_ms"])
        strictly = (own["output_tps_per_gpu"] > row["output_tps_per_gpu"]) | (own["tpot_mean_ms"] < row["tpot_mean_ms"])
        if not (better & strictly).any():
            kept.append(place)
    return kept


def _ring(axes: Axes, rows: pd.DataFrame, colour: str, marker: str, size: float) -> None:
    axes.plot(
        rows["tpot_mean_ms"],
        rows["output_tps_per_gpu"],
        linestyle="none",
        marker=marker,
        markersize=size,
        markerfacecolor="none",
        markeredgecolor=colour,
        markeredgewidth=1.4,
    )


def factors(table: pd.DataFrame) -> Drawn:
    """Draw a panel a setting: throughput per GPU by its value, among configurations that are alike in all else.

    A dot is a configuration against the mean of those that differ from it in this setting only, the line the mean of
    the dots with this value.
    """
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
        axes.set_xticklabels([_short(one, 16) for one in values], fontsize="x-small")
        axes.set_xlim(-0.4, len(values) - 0.6)
        axes.set_title(name)
    if not names:
        say_in_place(figure.add_subplot(1, 1, 1), "no setting was varied over two measured values")
    handles = [Line2D([], [], marker=MARKERS[n], color=palette(8)[n], label=model) for n, model in enumerate(models)]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(4, max(1, len(handles))), fontsize="x-small")
    figure.supylabel("Output tok/s per GPU, against those alike in all else (%)", fontsize="small")
    _provenance(figure, table)
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
        from memgap.tuning.speculation import segment

        return segment(value)
    return str(value)


def _value_order(value: str) -> tuple[int, float, str]:
    try:
        return 1, float(value), value
    except ValueError:
        return 0 if value == "not given" else 2, 0.0, value


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _provenance(figure: Figure, table: pd.DataFrame) -> None:
    """Write where the numbers come from, and what was refused or labelled, under the figure."""

    def found(column: str) -> list[str]:
        return sorted(map(str, table[column].dropna().unique()))

    days = sorted({one[:10] for one in found("date_utc")})
    parts = [*found("engine"), *found("device"), *(days if len(days) < 2 else [f"{days[0]} to {days[-1]}"])]
    parts.append(f"{int(table['blocks'].fillna(0).sum())} measurements of {len(table)} configurations")
    if any("memgap-mock" in one for one in found("engine")):
        parts.insert(0, "SIMULATED, not measured")
    if any("recorded" in one for one in found("source")):
        parts.insert(0, "recorded data")
    if "together" in found("servers"):
        parts.append("servers were started once, so intervals hold no difference between starts")
    if table["synthetic_acceptance"].fillna(False).astype(bool).any():
        parts.append("speculation with SYNTHETIC acceptance, set and not from the text")
    lines = textwrap.wrap("; ".join(parts), 130)
    failed = table[table["state"].isin(["failed", "refused"])]
    if len(failed):
        lines += textwrap.wrap(
            f"{len(failed)} without a number: "
            + "; ".join(
                _short(f"{row['label'] or row['experiment']}: {row['comment']}", 90) for _, row in failed.iterrows()
            ),
            130,
        )[:3]
    figure.supxlabel("\n".join(lines), fontsize=6, color=ALERT if len(failed) else GREY)


FIGURES: dict[str, Callable[[pd.DataFrame], Drawn]] = {"speedup": speedup, "pareto": pareto, "factors": factors}
