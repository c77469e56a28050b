"""A load test over time: requests a second, response time and TTFT, failures, memory, and prefix-cache hits."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from memgap.figures.footer import write_provenance
from memgap.figures.spec import FigureSpec
from memgap.figures.style import ALERT, apply_style, palette, say_in_place
from memgap.kinds.locust.point import LOCUST, OWN
from memgap.tables.inputs import Inputs

NAMES = {LOCUST: "Locust", OWN: "load generator"}
GIB = 2**30
COLUMN_IN, ROW_IN = 2.6, 1.25
FIGURE = FigureSpec(
    name="loadtest",
    title="A load test over time",
    reads=("loadtest.loadtest", "loadtest.timeline"),
    of="loadtest",
    file="{group}.loadtest",
    category="Load tests",
    target="loadtest",
    caption="""
Locust's users against one server, and the same requests from the load generator on the same server, in turns. One
column a scenario, one line a client, of the first repeat that was finished. Lines are means over slices of the
window; the dotted rate is Locust's own current one, over ten seconds that end two seconds before. See
docs/loadtest.md.
""",
)


def draw(inputs: Inputs) -> tuple[Figure, pd.DataFrame]:
    """Return the figure and the plotted numbers (the timeline of the drawn points)."""
    points, timeline = inputs["loadtest.loadtest"], inputs["loadtest.timeline"]
    scenarios = list(dict.fromkeys(zip(points["experiment"], points["session"], strict=True)))
    apply_style()
    rows: Sequence[tuple[str, Callable[[Axes, pd.DataFrame, Any], None]]] = (
        ("Requests/s", _rates),
        ("Response time,\ndashed: TTFT (ms)", _latencies),
        ("Failures/s", _failures),
        ("Server's memory,\nhost (GiB)", _memory),
        ("Prefix-cache hits\n(% of tokens)", _hits),
    )
    width = max(COLUMN_IN * len(scenarios) + 0.6, 4.6)
    figure = Figure(figsize=(width, ROW_IN * len(rows) + 1.3), layout="constrained")
    grid = figure.subplots(len(rows), max(len(scenarios), 1), squeeze=False, sharex="col", sharey="row")
    colours = dict(zip((LOCUST, OWN), palette(2), strict=True))
    drawn = []
    for place, (experiment, session) in enumerate(scenarios):
        own = points[(points["experiment"] == experiment) & (points["session"] == session)]
        lines = {}
        for client in (LOCUST, OWN):
            shown = _first(own[own["client"] == client], timeline)
            lines[client] = shown
            if shown is not None:
                drawn.append(shown)
        _title(grid[0][place], str(experiment), own)
        for row, (_, panel) in enumerate(rows):
            for client, shown in lines.items():
                if shown is not None:
                    panel(grid[row][place], shown, colours[client])
            if all(shown is None for shown in lines.values()):
                say_in_place(grid[row][place], "not measured")
            grid[row][place].label_outer()
        grid[-1][place].set_xlabel("Time (s)")
    joined = pd.concat(drawn, ignore_index=True) if drawn else timeline.iloc[:0]
    has_gpu = bool(joined["gpu_mem_used_bytes"].notna().any())
    for row, (label, _) in enumerate(rows):
        label = label.replace("host", "host, dotted: GPU") if has_gpu else label
        grid[row][0].set_ylabel(label, fontsize="small")
    _limits([row[0] for row in grid], joined)
    _legend(figure, colours, joined)
    write_provenance(figure, points.assign(batch_cap=points["users"], dataset=points["prompts"]), rates=False)
    return figure, joined[list(timeline.columns)]


def _first(own: pd.DataFrame, timeline: pd.DataFrame) -> pd.DataFrame | None:
    """Return the timeline of the first repeat that has one, a finished point before a failed one."""
    for _, point in own.assign(bad=own["status"] != "ok").sort_values(["bad", "repeat"], kind="stable").iterrows():
        shown: pd.DataFrame = timeline[timeline["key"] == point["key"]]
        if not shown.empty:
            return shown
    return None


def _title(axes: Axes, experiment: str, own: pd.DataFrame) -> None:
    failed = own[own["status"] != "ok"]
    counts = Counter(zip(failed["client"], failed["status"], strict=True))
    notes = [f"{NAMES[client]}: {count} x {status}" for (client, status), count in counts.items()]
    axes.set_title("\n".join([_wrapped(experiment), *notes]), fontsize="small", color=ALERT if notes else "black")


def _wrapped(text: str) -> str:
    parts = text.split(", ")
    return text if len(parts) < 3 else ", ".join(parts[:-2]) + ",\n" + ", ".join(parts[-2:])


def _middle(shown: pd.DataFrame) -> "pd.Series[float]":
    return shown["time_s"] + shown["bin_s"] / 2


def _line(axes: Axes, shown: pd.DataFrame, column: str, scale: float = 1.0, **look: Any) -> None:
    known = shown[shown[column].notna()]
    if not known.empty:
        marker = {"marker": ".", "markersize": 3} if len(known) < 12 else {}
        width = 2.4 if known["client"].iloc[0] == LOCUST else 1.2  # so that equal lines are both seen
        axes.plot(_middle(known), known[column] * scale, **{"linewidth": width, "zorder": 3, **marker, **look})


def _rates(axes: Axes, shown: pd.DataFrame, colour: Any) -> None:
    _line(axes, shown, "requests_per_s", color=colour)
    _line(axes, shown, "locust_requests_per_s", color=colour, linestyle=":", linewidth=1.2)


def _latencies(axes: Axes, shown: pd.DataFrame, colour: Any) -> None:
    _line(axes, shown, "response_time_mean_ms", color=colour)
    _line(axes, shown, "ttft_mean_ms", color=colour, linestyle="--")


def _failures(axes: Axes, shown: pd.DataFrame, colour: Any) -> None:
    _line(axes, shown, "failures_per_s", color=colour, clip_on=False)


def _memory(axes: Axes, shown: pd.DataFrame, colour: Any) -> None:
    _line(axes, shown, "rss_bytes", 1 / GIB, color=colour)
    _line(axes, shown, "gpu_mem_used_bytes", 1 / GIB, color=colour, linestyle=":")


def _hits(axes: Axes, shown: pd.DataFrame, colour: Any) -> None:
    _line(axes, shown, "prefix_hit_fraction", 100.0, color=colour)


def _limits(panels: Sequence[Axes], drawn: pd.DataFrame) -> None:
    """Set what each row of panels spans: from 0, with room above, but for latencies, which span decades."""

    def most(*columns: str) -> float:
        found = float(drawn[list(columns)].to_numpy(dtype=float, na_value=0.0).max()) if len(drawn) else 0.0
        return found if found > 0 else 1.0

    rates, latencies, failures, memory, hits = panels
    rates.set_ylim(0.0, 1.15 * most("requests_per_s", "locust_requests_per_s"))
    latencies.set_yscale("log")
    failures.set_ylim(0.0, 1.15 * most("failures_per_s"))
    memory.set_ylim(0.0, 1.15 * most("rss_bytes", "gpu_mem_used_bytes") / GIB)
    hits.set_ylim(0.0, 105.0)


def _legend(figure: Figure, colours: Mapping[str, Any], drawn: pd.DataFrame) -> None:
    clients = [client for client in (LOCUST, OWN) if (drawn["client"] == client).any()]
    handles = [Line2D([], [], color=colours[client], label=NAMES[client]) for client in clients]
    if LOCUST in clients:
        history = "requests/s as Locust's history has it"
        handles.append(Line2D([], [], color=colours[LOCUST], linestyle=":", label=history))
    if handles:
        figure.legend(handles=handles, loc="outside upper center", ncols=3, fontsize="small")
