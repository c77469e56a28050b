"""The panels of a lab's figure: lines, bars, values over time, stacks and trade-offs."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.ticker import FuncFormatter

from memgap.config.numbers import ENDLESS
from memgap.figures.style import GREY, MARKERS, log2_axis, palette, say_in_place
from memgap.figures.words import axis_label, unit_label, unit_of, words_of
from memgap.labs.names import AXIS, SAME, leading, metric_of, value_text
from memgap.stats.intervals import student_interval

LINES = ("-", "--", ":", "-.")
RATE_AT_ONCE, GAP = "all at once", "itl_ms"
LONGEST_LINE, LONGEST_LABEL = 16, 32
"""Characters of a line below a bar, and beside a panel."""
MOST_OVER_MEAN = 3.0
"""Intervals of few blocks can be so wide that nothing else is seen."""
Panel = Mapping[str, Any]
Plan = Mapping[str, Any]
COLUMNS = ("panel", "quantity", "series", "x", "value", "low", "high", "blocks")


@dataclass(frozen=True)
class Looks:
    """A colour and a marker for each arm; the reference once more is grey."""

    of_arm: Mapping[str, tuple[Any, str]] = field(default_factory=dict)

    @staticmethod
    def of(plan: Plan) -> "Looks":
        """Return the looks of a lab's arms, the same in all panels."""
        arms = [arm for arm in plan["arms"] if arm != SAME]
        looks = {
            arm: (colour, MARKERS[place % len(MARKERS)])
            for place, (arm, colour) in enumerate(zip(arms, palette(len(arms)), strict=True))
        }
        return Looks({**looks, SAME: (GREY, "x")})


@dataclass(frozen=True)
class Curve:
    """What is drawn as one: its name, its arm, how many-th of the arm's it is, and its values."""

    label: str
    arm: str
    place: int
    rows: pd.DataFrame


def panels_of(plan: Plan) -> list[dict[str, Any]]:
    """Return the panels as they are drawn: several metrics that do not belong at one axis are a panel each."""
    found: list[dict[str, Any]] = []
    for panel in plan["figure"]["panels"]:
        metrics = [panel["y"]] if isinstance(panel["y"], str) else list(panel["y"])
        together = panel["kind"] == "stack" or (
            panel["kind"] == "bars" and "x" not in panel and len({unit_of(one) for one in metrics}) == 1
        )
        for group in [metrics] if together else [[one] for one in metrics]:
            # gaps are so many that one arm's would hide another's
            arms = [arm for arm in plan["arms"] if arm != SAME] if group[0].startswith(GAP) else []
            found += [{**panel, "y": group, "arm": arm, "title": plan["arms"][arm]} for arm in arms]
            found += [] if arms else [{**panel, "y": group}]
    return found


def draw_panel(
    axes: Axes, panel: Panel, plan: Plan, points: pd.DataFrame, series: pd.DataFrame, looks: Looks
) -> pd.DataFrame:
    """Draw one panel; returns its numbers with the columns `COLUMNS`."""
    drawing = {"line": _line, "bars": _bars, "series": _series, "stack": _stack, "pareto": _pareto}[panel["kind"]]
    source = series if panel["kind"] == "series" else points
    rows = _at(source, panel, plan)
    found = pd.DataFrame(columns=list(COLUMNS)) if rows.empty else drawing(axes, panel, plan, rows, looks)
    title = panel.get("title", "")
    if found.empty:
        axes.set_ylabel(axis_label(metric_of(panel["y"][0]).name))
        say_in_place(axes, "nothing of this was measured")
    elif panel.get("scale") == "log":
        axes.set_yscale("log")
        for axis_part in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            axis_part(FuncFormatter(lambda value, _: f"{value:g}"))
    elif panel["kind"] in ("line", "bars") and found["value"].min() > 0:
        axes.set_ylim(top=min(axes.get_ylim()[1], MOST_OVER_MEAN * found["value"].max()))
    axes.set_title(title)
    return found.assign(panel=title or panel["kind"])


def _at(table: pd.DataFrame, panel: Panel, plan: Plan) -> pd.DataFrame:
    for path, value in panel.get("at", {}).items():
        values = value if isinstance(value, list) else [value]
        table = table[table[f"{AXIS}{path}"].astype(str).isin([value_text(one) for one in values])]
    return table


def _value(rows: pd.DataFrame, text: str, panel: Panel) -> pd.DataFrame:
    """Return the rows that have a metric, with it as `value`; with `over` by that arm's, within blocks."""
    metric = metric_of(text)
    if metric.phase:
        rows = rows[rows["phase"].fillna("").eq(metric.phase)]
    if metric.name not in rows:
        return rows.iloc[:0].assign(value=0.0)
    rows = rows.assign(value=pd.to_numeric(rows[metric.name], errors="coerce")).dropna(subset=["value"])
    if "over" not in panel:
        return rows
    keys = ["block", *(["phase"] if "phase" in rows else []), *(one for one in rows.columns if one.startswith(AXIS))]
    filled = rows.fillna({one: "" for one in keys if one != "block"})
    base = filled[filled["arm"] == panel["over"]].set_index(keys)["value"]
    wanted = pd.MultiIndex.from_frame(filled[keys]) if len(keys) > 1 else filled[keys[0]]
    by = base[~base.index.duplicated()].reindex(wanted).to_numpy()
    return rows.assign(value=rows["value"].to_numpy() / by).dropna(subset=["value"])


def _mean(values: Sequence[float], panel: Panel) -> tuple[float, float, float]:
    """Return the mean over blocks and its interval, of ratios as logarithms; without an interval NaN."""
    logs = "over" in panel and all(one > 0 for one in values)
    back: Callable[[float], float] = math.exp if logs else float
    used = [math.log(one) for one in values] if logs else list(values)
    found = student_interval(used)
    low, high = (back(found.low), back(found.high)) if found else (math.nan, math.nan)
    return back(float(np.mean(used))), low, high


def _curves(rows: pd.DataFrame, panel: Panel, plan: Plan, x: str) -> Iterator[Curve]:
    """Yield what is drawn apart: by arm, and by each axis and phase that is not x and has several values."""
    apart = [_column(one) for one in _listed(panel.get("by", "arm")) if one != "arm"]
    rest = [f"{AXIS}{path}" for path in leading(plan)] + ["phase"]
    shown = [x, *apart]
    tied = {f"{AXIS}{path}" for group in plan["zip"] for path in group if {f"{AXIS}{one}" for one in group} & {*shown}}
    apart += [one for one in rest if one not in {*shown, *tied} and one in rows and rows[one].nunique() > 1]
    if "arm" not in _listed(panel.get("by", "arm")) and x != "arm":
        apart.append("arm")  # arms are never mixed
    places: dict[str, int] = {}
    for arm in (one for one in plan["arms"] if one in set(rows["arm"])) if x != "arm" else [""]:
        own = rows[rows["arm"] == arm] if arm else rows
        keys = [one for one in apart if one != "arm"]
        groups = own.groupby(keys, sort=False, dropna=False) if keys else [((), own)]
        for key, group in groups:
            named = zip(keys, key if isinstance(key, tuple) else (key,), strict=True)
            beside = [f"{_short(name)} {value}" for name, value in named if rows[name].nunique() > 1]
            label = ", ".join([*([str(group["label"].iloc[0])] if arm else []), *beside])
            yield Curve(label, arm, places.setdefault(arm, 0), group)
            places[arm] += 1


def _column(name: str) -> str:
    return name if name in ("arm", "phase") else f"{AXIS}{name}"


def _short(column: str) -> str:
    return column.removeprefix(AXIS).rpartition(".")[2].replace("_", " ")


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _ticks(x: str, plan: Plan, rows: pd.DataFrame) -> tuple[list[str], list[float], bool]:
    """Return the values of x in their order, their places, and whether these are numbers of their own."""
    if x == "arm":
        order = [arm for arm in plan["arms"] if arm in set(rows["arm"])]
        return order, list(map(float, range(len(order)))), False
    if x == "phase":
        order = [one for one in plan["phases"] if one in set(rows["phase"])]
        return order, list(map(float, range(len(order)))), False
    there = set(rows[f"{AXIS}{x}"].astype(str))
    values = [one for one in plan["axes"][x] if value_text(one) in there]
    texts = [value_text(one) for one in values]
    if all(isinstance(one, int | float) and not isinstance(one, bool) for one in values):
        return texts, [float(one) for one in values], True
    return texts, list(map(float, range(len(values)))), False


def _x_axis(axes: Axes, x: str, plan: Plan, texts: Sequence[str], places: Sequence[float], numeric: bool) -> None:
    if numeric:
        log2_axis(axes, places)
        if len(places) <= 8:
            axes.set_xticks(places, texts)
            axes.minorticks_off()
    else:
        axes.set_xticks(places, [plan["arms"].get(one, one) if x == "arm" else _told(one) for one in texts])
    if x not in ("arm", "phase"):
        axes.set_xlabel(X_LABELS.get(x) or axis_label(x.rpartition(".")[2].replace("-", "_")))


X_LABELS = {
    "load.rate_of_capacity": "Offered load (share of capacity)",
    "load.rate_req_s": "Offered load (requests/s)",
    "batch_cap": "Requests in flight",
    "batch": "Batch size",
    "dataset": "Workload",
}


def _told(text: str) -> str:
    return RATE_AT_ONCE if text == ENDLESS else text.replace("_", " ")


def _y_axis(axes: Axes, panel: Panel, plan: Plan, text: str) -> None:
    name = metric_of(text).name
    if "over" in panel:
        axes.axhline(1.0, color=GREY, linewidth=0.8, linestyle=":")
        axes.set_ylabel(fill(axis_label(name, f"by {plan['arms'][panel['over']]}"), LONGEST_LABEL))
        return
    axes.set_ylabel(fill(axis_label(name), LONGEST_LABEL))
    if panel.get("scale") != "log":
        axes.set_ylim(bottom=0)


def _line(axes: Axes, panel: Panel, plan: Plan, rows: pd.DataFrame, looks: Looks) -> pd.DataFrame:
    (text,), x = panel["y"], panel["x"]
    rows = _value(rows, text, panel)
    texts, places, numeric = _ticks(x, plan, rows)
    at, found = dict(zip(texts, places, strict=True)), []
    for curve in _curves(rows, panel, plan, _column(x)):
        groups = [(one, curve.rows[curve.rows[_column(x)].astype(str) == one]["value"].tolist()) for one in texts]
        own = [(at[one], *_mean(values, panel), one, len(values)) for one, values in groups if values]
        colour, marker = looks.of_arm.get(curve.arm, (GREY, "o"))
        xs, means, lows, highs, names, counts = zip(*own, strict=True) if own else ((),) * 6
        axes.errorbar(
            xs,
            means,
            yerr=_whiskers(means, lows, highs),
            color=colour,
            marker=marker,
            linestyle=LINES[curve.place % len(LINES)] if curve.arm != SAME else "none",
            markersize=4.5,
            linewidth=1.4,
            capsize=2,
            label=curve.label,
        )
        found += [
            (text, curve.label, one, value, low, high, count)
            for one, value, low, high, count in zip(names, means, lows, highs, counts, strict=True)
        ]
    _x_axis(axes, x, plan, texts, places, numeric)
    _y_axis(axes, panel, plan, text)
    return _numbers(found)


def _bars(axes: Axes, panel: Panel, plan: Plan, rows: pd.DataFrame, looks: Looks) -> pd.DataFrame:
    """Draw bars by arm, grouped by x, or by metric where there are several of one unit."""
    metrics, x = panel["y"], panel.get("x")
    if x == "arm":
        x = None
    groups = _ticks(x, plan, rows)[0] if x else metrics
    tall: dict[str, tuple[Curve, dict[str, tuple[float, float, float, int]]]] = {}
    found = []
    for metric in metrics:
        valued = _value(rows, metric, panel)
        for curve in _curves(valued, panel, plan, _column(x) if x else ""):
            own = (
                {one: curve.rows[curve.rows[_column(x)].astype(str) == one] for one in groups}
                if x
                else {metric: curve.rows}
            )
            for one, part in own.items():
                if len(part):
                    values = (*_mean(part["value"].tolist(), panel), len(part))
                    tall.setdefault(curve.label, (curve, {}))[1][one] = values
                    found.append((metric, curve.label, one if x else "", *values))
    alone = not x and len(groups) == 1
    width = 0.8 if alone else 0.8 / max(len(tall), 1)
    for number, (label, (curve, heights)) in enumerate(tall.items()):
        shift = (number - (len(tall) - 1) / 2) * width
        at = [float(number)] if alone else [groups.index(one) + shift for one in heights]
        means, lows, highs, _ = zip(*heights.values(), strict=True)
        colour = lighter(looks.of_arm.get(curve.arm, (GREY, ""))[0], curve.place)
        axes.bar(
            at,
            means,
            width=width * 0.92,
            yerr=_whiskers(means, lows, highs),
            error_kw={"linewidth": 0.8},
            capsize=2,
            color=colour,
            linewidth=0,
            label=None if alone else label,
        )
    if x:
        _x_axis(axes, x, plan, groups, list(range(len(groups))), numeric=False)
    elif len(groups) > 1:
        told = [fill(words_of(metric_of(one).name), LONGEST_LINE) for one in groups]
        axes.set_xticks(range(len(groups)), told, fontsize=7)
    else:
        axes.set_xticks(range(len(tall)), [_broken(label) for label in tall], fontsize=8 if len(tall) < 5 else 6)
    _y_axis(axes, panel, plan, metrics[0])
    if len(groups) > 1 and not x:
        axes.set_ylabel(unit_label(metrics[0]))
    axes.grid(visible=False, axis="x")
    return _numbers(found)


def lighter(colour: Any, place: int) -> tuple[float, float, float]:
    """Return the colour of an arm's so many-th bar: the first as it is, each further one nearer to white."""
    kept = 0.6 ** min(place, 3)
    red, green, blue = (1 - (1 - part) * kept for part in to_rgb(colour))
    return red, green, blue


def _series(axes: Axes, panel: Panel, plan: Plan, rows: pd.DataFrame, looks: Looks) -> pd.DataFrame:
    """Draw a value over time by arm, at the last value of each axis unless `at` or `by` says otherwise."""
    (quantity,) = panel["y"]
    rows = rows[rows["quantity"] == quantity]
    for path in plan["axes"]:
        if path not in panel.get("at", {}) and path not in _listed(panel.get("by", "arm")) and len(rows):
            texts = rows[f"{AXIS}{path}"].astype(str)
            last = [one for one in map(value_text, plan["axes"][path]) if one in set(texts)][-1]
            rows = rows[texts == last]
    found, most = [], rows["value"].max()
    arms = [panel["arm"]] if "arm" in panel else [arm for arm in plan["arms"] if arm != SAME]
    for curve in _curves(rows[rows["arm"].isin(arms)], panel, plan, ""):
        own = curve.rows.dropna(subset=["value"]).sort_values("time_s", kind="stable")
        colour = looks.of_arm[curve.arm][0]
        # gaps are single moments, all else is known between them
        single = quantity.startswith(GAP) or len(own) == 1
        line, marker = ("none", ".") if single else (LINES[curve.place % 4], "")
        (drawn,) = axes.plot(own["time_s"], own["value"], color=colour, label=curve.label, linewidth=1.2)
        drawn.set(linestyle=line, marker=marker, markersize=2.5)
        found += [
            (quantity, curve.label, t, v, math.nan, math.nan, 1)
            for t, v in zip(own["time_s"], own["value"], strict=True)
        ]
    axes.set_xlabel("Time since the first request (s)")
    _y_axis(axes, panel, plan, quantity)
    if "arm" in panel and most > 0:  # the panels of all arms have one scale
        axes.set_ylim(top=1.05 * most)
    return _numbers(found)


def _stack(axes: Axes, panel: Panel, plan: Plan, rows: pd.DataFrame, looks: Looks) -> pd.DataFrame:
    """Draw the parts of a sum above one another, a bar an arm and what else is apart."""
    wanted = [metric_of(one).name for one in panel["y"]]
    names = list(map(str, rows.columns))
    metrics = [name for one in wanted for name in names if fnmatchcase(name, one)]
    metrics = [one for one in dict.fromkeys(metrics) if pd.to_numeric(rows[one], errors="coerce").notna().any()]
    curves = list(_curves(rows, panel, plan, ""))
    bottoms, found = [0.0] * len(curves), []
    for metric, colour in zip(metrics, palette(len(metrics)), strict=True):
        values = [pd.to_numeric(curve.rows[metric], errors="coerce").mean() for curve in curves]
        heights = [0.0 if math.isnan(one) else one for one in values]
        axes.bar(range(len(curves)), heights, bottom=bottoms, color=colour, label=words_of(metric), width=0.6)
        bottoms = [bottom + height for bottom, height in zip(bottoms, heights, strict=True)]
        found += [
            (metric, c.label, "", v, math.nan, math.nan, len(c.rows)) for c, v in zip(curves, values, strict=True)
        ]
    if not metrics:
        return _numbers([])
    axes.set_xticks(range(len(curves)), [_broken(one.label) for one in curves], fontsize=8 if len(curves) < 5 else 6)
    axes.set_ylabel(unit_label(metrics[0]))
    axes.grid(visible=False, axis="x")
    return _numbers(found)


def _pareto(axes: Axes, panel: Panel, plan: Plan, rows: pd.DataFrame, looks: Looks) -> pd.DataFrame:
    """Draw one metric over another, an arm's points in the order of its axis values."""
    (y,), x = panel["y"], panel["x"]
    found = []
    order = [f"{AXIS}{path}" for path in plan["axes"]]
    for curve in _curves(rows, {**panel, "by": "arm"}, {**plan, "axes": {}}, ""):
        groups = curve.rows.groupby(order, sort=False, dropna=False) if order else [("", curve.rows)]
        marks = []
        for key, own in groups:
            xs, ys = (_value(own, one, panel)["value"].tolist() for one in (x, y))
            if xs and ys:
                marks.append(
                    (
                        _mean(xs, panel),
                        _mean(ys, panel),
                        " ".join(map(str, key if isinstance(key, tuple) else (key,))),
                        len(ys),
                    )
                )
        if not marks:
            continue
        colour, marker = looks.of_arm.get(curve.arm, (GREY, "o"))
        (mx, lx, hx), (my, ly, hy) = (list(zip(*(one[place] for one in marks), strict=True)) for place in (0, 1))
        joined = "-" if curve.arm != SAME else "none"
        bars = {"xerr": _whiskers(mx, lx, hx), "yerr": _whiskers(my, ly, hy), "capsize": 2}
        axes.errorbar(mx, my, color=colour, marker=marker, linestyle=joined, markersize=4.5, label=curve.label, **bars)
        found += [(y, curve.label, a[0], *b, count) for a, b, _, count in marks]
    axes.set_xlabel(axis_label(metric_of(x).name))
    _y_axis(axes, panel, plan, y)
    return _numbers(found)


def _whiskers(means: Sequence[float], lows: Sequence[float], highs: Sequence[float]) -> Any:
    """Return error bars; None where no value has an interval."""
    pairs = zip(means, lows, highs, strict=True)
    spans = [
        [0.0 if math.isnan(low) else mean - low, 0.0 if math.isnan(high) else high - mean] for mean, low, high in pairs
    ]
    return np.array(spans).T.clip(min=0.0) if any(map(any, spans)) else None


def _broken(text: str) -> str:
    return text.replace(", ", "\n")


def _numbers(found: Sequence[tuple[Any, ...]]) -> pd.DataFrame:
    return pd.DataFrame(found, columns=list(COLUMNS[1:]))
