"""What a restart costs: starts by phase, and TTFT before it, right after it, and once everything is warm again."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from memgap.figures.footer import write_footer
from memgap.figures.spec import FigureSpec
from memgap.figures.style import new_figure, palette, say_in_place
from memgap.tables.fate import INVALID
from memgap.tables.inputs import Inputs
from memgap.tables.provenance import source_line

PHASES = ("process", "import", "weights", "compile", "capture", "ready", "first_token")
NAMES = {"first": "first start", "again": "started again"}
FIGURE = FigureSpec(
    name="restart",
    title="What a restart costs",
    reads=("restarts.restart", "restarts.startup"),
    of="restarts",
    file="{group}.restart",
    category="Restarts",
    target="restart",
    caption="""
Left, each start by phase, until the server is ready and, of the second start, until the first token of the first
request: the difference between the two starts is what caches on disk and in memory save. Right, the time to first
token before the stop, cold right after the start, and warm with the same prompts once more; bars are means over
points of the same model, whiskers from the median to the 99th percentile.
""",
)


def draw(inputs: Inputs) -> tuple[Figure, pd.DataFrame]:
    """Return the figure and the plotted numbers."""
    windows, phases = inputs["restarts.restart"], inputs["restarts.startup"]
    fates = windows["status"].where(windows["verdict"] != INVALID, INVALID)
    good = windows[windows["window"].notna() & (fates != INVALID)]
    figure, (left, right) = new_figure(2)
    starts = phases.groupby(["model", "start", "phase"], sort=False)["duration_s"].mean().reset_index()
    ttft = good.groupby(["model", "window"], sort=False)[["ttft_mean_ms", "ttft_median_ms", "ttft_p99_ms"]].mean()
    _draw_starts(left, starts)
    _draw_ttft(right, ttft.reset_index())
    counted = [f"{windows['key'].nunique()} points"]
    lost = windows.assign(fate=fates)[windows["window"].isna() | (fates != "ok")]
    alerts = [f"not whole: {row.model} cap {row.batch_cap:.0f} ({row.fate})" for row in lost.itertuples()]
    write_footer(figure, [source_line(windows.drop_duplicates("key"), counted)], list(dict.fromkeys(alerts)))
    numbers = [starts.assign(panel="starts"), ttft.reset_index().assign(panel="ttft")]
    return figure, pd.concat(numbers, ignore_index=True)


def _draw_starts(axes: Axes, starts: pd.DataFrame) -> None:
    if starts.empty:
        say_in_place(axes, "no start was recorded")
        return
    colours = dict(zip(PHASES, palette(len(PHASES)), strict=True))
    rows = list(dict.fromkeys(zip(starts["model"], starts["start"], strict=True)))
    ends = dict.fromkeys(rows, 0.0)
    for phase in (one for one in PHASES if one in set(starts["phase"])):
        own = starts[starts["phase"] == phase]
        lasted = dict(zip(zip(own["model"], own["start"], strict=True), own["duration_s"], strict=True))
        places = [place for place, row in enumerate(rows) if row in lasted]
        values = [lasted[rows[place]] for place in places]
        lefts = [ends[rows[place]] for place in places]
        axes.barh(places, values, left=lefts, color=colours[phase], label=phase.replace("_", " "), height=0.6)
        for place, value in zip(places, values, strict=True):
            ends[rows[place]] += value
    several = starts["model"].nunique() > 1
    axes.set_yticks(range(len(rows)), [f"{model}\n{NAMES[one]}" if several else NAMES[one] for model, one in rows])
    axes.invert_yaxis()
    axes.set_xlabel("Time since the start (s)")
    axes.legend(fontsize=6, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))


def _draw_ttft(axes: Axes, ttft: pd.DataFrame) -> None:
    if ttft.empty:
        say_in_place(axes, "no window was measured")
        return
    models, windows = (list(dict.fromkeys(ttft[name])) for name in ("model", "window"))
    width = 0.8 / len(models)
    for number, (model, colour) in enumerate(zip(models, palette(len(models)), strict=True)):
        own = ttft[ttft["model"] == model].set_index("window").reindex(windows)
        places = [place + (number - (len(models) - 1) / 2) * width for place in range(len(windows))]
        axes.bar(places, own["ttft_mean_ms"], width=width * 0.9, color=colour, label=model)
        axes.vlines(places, own["ttft_median_ms"], own["ttft_p99_ms"], color="black", linewidth=0.8)
    axes.set_xticks(range(len(windows)), windows)
    axes.set_ylabel("Time to first token (ms)")
    axes.set_ylim(bottom=0)
    if len(models) > 1:
        axes.legend(fontsize=6)
