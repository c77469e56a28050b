"""Where the time goes: the wall time of a decode step in its parts; see `step_time` and `online_time`."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from memgap.declared.figures import FigureSpec
from memgap.figures.offline_notes import say_empty, write_notes
from memgap.figures.online_time import ADDED, BARE, STEP, left_out_note, online_parts
from memgap.figures.online_time import PARTS as ONLINE_PARTS
from memgap.figures.step_time import PARTS, VARIANT, residuals, step_parts
from memgap.figures.style import apply_style, legend_above, palette
from memgap.tables.inputs import Inputs
from memgap.tables.offline_points import batch_label
from memgap.tables.offline_study import offline_of

RESIDUAL_BOUND = 0.03
MOST_BARS = 12
"""Of a model with more bars than fit, the variant with the most batches is drawn; the others are in the tables."""
FIGURE = FigureSpec(
    name="timeshare",
    title="Where the time goes",
    reads=("study.offline", "study.classes", "sweep?.points"),
    paper=True,
    settings={"sweep": "Sweep of servers; where the time of its tokens goes is drawn below."},
    caption="""
The wall time of a decode step: weight reads (matrix products), KV reads (attention), sampling and other kernels,
launch gaps (between first launch and sampled tokens, without a kernel), and the host's input preparation, scheduler,
detokenising, output handling. Kernels come from a profiled run, wall time and the host's parts from an unprofiled
one. They sum to the wall time, which stands above; the residual is drawn, and the largest printed, in red beyond 3 %;
it is negative where parts ran at once (asynchronous scheduling). Where a batch ran with and without detokenising in
the engine's process it has two bars, "text" and "ids". With `sweep` the panels on the right are a token behind a
server, by batch cap: the steady ITL; of it, where the study has points with asynchronous scheduling, the offline step
of as many requests as ran, and what a server's step takes longer (prefill chunks in the same step, longer contexts,
messages between processes); then the request's own prefill and queue, the API server (its end-to-end time less the
engine's) and the client with HTTP (its end-to-end time less the server's), each over the request's mean output length.
All of these are clocks, none is a model. The paper has no such figure; the host's part is the one that it does not
name.
""",
)


def draw(inputs: Inputs) -> tuple[Figure, pd.DataFrame]:
    """Return the figure and the plotted numbers (a row a model, batch, variant and part; online by batch cap)."""
    data = _one_variant(step_parts(offline_of(inputs)))
    points = inputs["sweep.points"]
    online = online_parts(offline_of(inputs), points)
    models = list(dict.fromkeys(data["model"]))
    online = online[online["model"].isin(models)]
    lost = left_out_note(points[points["model"].isin(models)]) if len(points) else ""
    apply_style()
    columns, rows = 2 if len(online) else 1, max(len(models), 1)
    figure = Figure(figsize=(7.2, 1.2 + 1.9 * rows), layout="constrained")
    for place, model in enumerate(models):
        step, *behind_server = (figure.add_subplot(rows, columns, 1 + place * columns + one) for one in range(columns))
        _draw_bars(step, data[data["model"] == model])
        step.set_title(f"{model}: a decode step", fontsize="small")
        step.set_ylabel("Share of wall time (%)", fontsize="small")
        for axes in behind_server:
            _draw_online(axes, online[online["model"] == model])
            axes.set_title(f"{model}: a token behind a server", fontsize="small")
        if place == len(models) - 1:
            step.set_xlabel("Batch size (requests); above: wall time in ms", fontsize="small")
    if models:
        legend_above(figure, 3, [*PARTS.values(), *ONLINE_PARTS.values()])
    else:
        say_empty(figure.add_subplot(1, 1, 1), "no point of this study has the parts of its decode step")
    notes, alerts = _residual_note(data)
    write_notes(figure, inputs["study.offline"], [_about(data, online), lost, *notes], alerts)
    return figure, pd.concat([data, online], ignore_index=True) if len(online) else data


def _one_variant(data: pd.DataFrame) -> pd.DataFrame:
    """Return the variant with the most batches of each model, and others only where they are the model's only one."""
    kept = []
    for _, own in data.groupby("model", sort=False):
        batches = own.groupby(list(VARIANT), sort=False)["batch"].nunique()
        if len(batches) and len(own.drop_duplicates(["batch", *VARIANT])) > MOST_BARS:
            chosen = batches.idxmax()
            own = own[[pair == chosen for pair in own[list(VARIANT)].itertuples(index=False, name=None)]]
        kept.append(own)
    return pd.concat(kept, ignore_index=True) if kept else data


def _draw_bars(axes: Axes, own: pd.DataFrame) -> None:
    """Draw the shares of each step's wall time, with the time itself above."""
    bars = own.drop_duplicates(["batch", *VARIANT])[["batch", *VARIANT]].reset_index(drop=True)
    keys = list(bars.itertuples(index=False, name=None))
    table = own.assign(bar=[keys.index(key) for key in own[["batch", *VARIANT]].itertuples(index=False, name=None)])
    plain = [part for part in PARTS if part != "residual"]
    colours = dict(zip(plain, palette(len(plain)), strict=True)) | {"residual": (0.8, 0.8, 0.8)}
    bottoms = pd.Series(0.0, index=range(len(keys)))
    for part in PARTS:
        heights = table[table["part"] == part].set_index("bar")["share_fraction"]
        if heights.empty:
            continue
        shown = 100.0 * heights.clip(lower=0.0)
        axes.bar(
            shown.index,
            shown,
            bottom=bottoms[shown.index],
            width=0.8,
            color=colours[part],
            linewidth=0,
            label=PARTS[part],
        )
        bottoms[shown.index] += shown
    for place, wall_ms in table.groupby("bar")["ms"].sum().items():
        axes.annotate(
            f"{wall_ms:.1f}",
            (int(str(place)), float(bottoms.to_numpy()[int(str(place))])),
            ha="center",
            va="bottom",
            fontsize=6,
        )
    axes.set_xticks(range(len(keys)), _ticks(bars), fontsize=6.5)
    axes.set_ylim(0, 115)
    axes.set_yticks(range(0, 101, 25))
    axes.grid(False, axis="x")


def _draw_online(axes: Axes, own: pd.DataFrame) -> None:
    own, caps = _without_negative(own), sorted(set(own["batch_cap"]))
    bottoms = pd.Series(0.0, index=caps)
    for (part, label), colour in zip(ONLINE_PARTS.items(), palette(len(ONLINE_PARTS)), strict=True):
        heights = own[own["part"] == part].set_index("batch_cap")["ms"].clip(lower=0.0)
        if heights.empty:
            continue
        places = [caps.index(cap) for cap in heights.index]
        axes.bar(
            places,
            heights,
            bottom=bottoms[heights.index],
            width=0.8,
            color=colour,
            hatch="/////",
            edgecolor="white",
            linewidth=0.0,
            label=label,
        )
        bottoms[heights.index] += heights
    axes.set_xticks(range(len(caps)), [batch_label(cap) for cap in caps], fontsize=6.5)
    axes.grid(False, axis="x")
    axes.set_xlabel("Batch cap of a server", fontsize="small")
    axes.set_ylabel("Online token (ms)", fontsize="small")


def _without_negative(own: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with a step in one piece where the server's is the shorter one."""
    steps = own.pivot_table(index="batch_cap", columns="part", values="ms").reindex(columns=[BARE, ADDED])
    shorter = own["batch_cap"].isin(steps.index[steps[ADDED] < 0])
    whole = own[shorter & (own["part"] == BARE)]
    whole = whole.assign(part=STEP, ms=whole["batch_cap"].map(steps.sum(axis=1)))
    return pd.concat([own[~(shorter & own["part"].isin([BARE, ADDED]))], whole], ignore_index=True)


def _ticks(bars: pd.DataFrame) -> list[str]:
    """Return the batches; where bars differ in a variant, with what sets them apart."""
    words = {
        "async_scheduling": {"yes": "async", "no": "sync"},
        "detokenize": {"yes": "text", "no": "ids"},
    }
    ticks = []
    for _, bar in bars.iterrows():
        same = bars[bars["batch"] == bar["batch"]]
        apart = [words[name].get(bar[name], bar[name]) for name in VARIANT if same[name].nunique() > 1]
        ticks.append("\n".join([batch_label(bar["batch"]), *apart]))
    return ticks


def _about(data: pd.DataFrame, online: pd.DataFrame) -> str:
    notes = []
    profilers = sorted(set(data["profiler"]) - {""})
    if profilers:
        notes.append(f"kernels by {', '.join(profilers)}, wall time and host parts without a profiler")
    if data.groupby(["model", "batch"])["detokenize"].nunique().gt(1).any():
        notes.append("text: tokens become text in the engine's process; ids: they stay numbers")
    return "; ".join([*notes, *_about_online(online)])


def _about_online(online: pd.DataFrame) -> list[str]:
    if online.empty:
        return []
    wide = online.pivot_table(index=["model", "batch_cap"], columns="part", values="share_fraction")
    outside = wide[["api_server", "client"]].sum(axis=1)
    notes = [
        "right: the steady ITL, and a request's prefill, queue, API server and client over its tokens",
        f"API server, IPC and client together are at most {outside.max():.1%} of an online token",
    ]
    if {BARE, ADDED} <= set(wide.columns):
        added = (wide[ADDED] / (wide[ADDED] + wide[BARE])).dropna()
        if (added >= 0).any():
            notes.append(f"up to {added.max():.0%} of a server's step are beyond the offline one of as many requests")
        if (added < 0).any():
            caps = ", ".join(batch_label(cap) for cap in sorted({cap for _, cap in added.index[added < 0]}))
            notes.append(f"at cap {caps} it is shorter: in process, one process does all of the host's work")
    return notes


def _residual_note(data: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Return the line on the largest residual, as a note within the bound and as an alert beyond it."""
    found = residuals(data)
    if found.empty:
        return [], []
    worst = found.iloc[0]
    share = float(worst["share_fraction"])
    place = f"{worst['model']} batch {batch_label(worst['batch'])}"
    text = f"largest residual: {share:.1%} of the wall time ({place})"
    if abs(share) <= RESIDUAL_BOUND:
        return [text], []
    over = int((found["share_fraction"].abs() > RESIDUAL_BOUND).sum())
    meaning = "unexplained" if share > 0 else "parts ran at the same time"
    return [], [f"{text}, {meaning}; {over} of {len(found)} bars are beyond {RESIDUAL_BOUND:.0%}"]
