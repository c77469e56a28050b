"""Figure 5: DRAM traffic and warps in flight of a decode phase, mean and maximum over the batch."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from memgap.declared.figures import FigureSpec
from memgap.figures.offline_notes import say_empty, write_notes
from memgap.figures.paper import LABEL, read_paper
from memgap.figures.step_timeline import as_steps, one_step
from memgap.figures.style import GREY, apply_style, legend_above, palette
from memgap.tables.device_metrics import METRICS, NCU, phase_metrics, samples_of
from memgap.tables.inputs import Inputs
from memgap.tables.offline_points import batch_label, ends, main_points, richest_model
from memgap.tables.offline_study import OfflineTables, offline_of

COLUMNS = ["record", "model", "batch", "metric", "statistic", "time_ms", "value_fraction", "source"]
PAPER_METRICS = {"compute_warps_in_flight": "warps", "dram_read_bandwidth": "dram_read"}
MOST_SAMPLES = 400
"""Longer series are drawn as the largest value of each of that many equal parts."""
FIGURE = FigureSpec(
    name="fig05",
    title="Figure 5: DRAM traffic and warps in flight",
    reads=("study.offline", "study.classes", "study.kernels", "study.counters", "study.gpu"),
    paper=True,
    caption="""
Solid is the mean, hatched the maximum over the decode phase; above, both over time at the smallest and the largest
batch. Each title names its source: device counters over time (nsys GPU metrics); NVML's means over the phase, in
which DRAM is read and write together; or, where neither is there, ncu's counters of single kernels: their mean
weighted by duration times the share of the step in which any kernel ran, and the busiest kernel as the maximum. The
line below names the classes that were counted. The published script cuts its series at fixed sample numbers.
""",
)


def draw(inputs: Inputs) -> tuple[Figure, pd.DataFrame]:
    """Return the figure and the plotted numbers: a row a bar, and a row a sample over time (record `series`)."""
    tables = offline_of(inputs)
    bars = _bars(tables)
    models = list(dict.fromkeys(bars["model"]))
    apply_style()
    rows = 1 + max(1, -(-len(models) // 2))
    figure = Figure(figsize=(7.2, 0.5 + 2.1 * rows), layout="constrained")
    grid = figure.add_gridspec(rows, 2)
    series = []
    main = richest_model(bars)
    batches = ends(bars[bars["model"] == main]) if main else []
    for place in range(2):
        axes = figure.add_subplot(grid[0, place])
        if place < len(batches) and main:
            series.append(_draw_series(axes, tables, main, batches[place]))
        else:
            say_empty(axes, "no other batch was measured" if main else "no point of this study has device counters")
    wide = len(models) < 2
    for place, model in enumerate(models):
        spot = grid[1, :] if wide else grid[1 + place // 2, place % 2]
        _draw_bars(figure.add_subplot(spot), bars[bars["model"] == model], inputs)
    if not models:
        say_empty(figure.add_subplot(grid[1, :]), "no point of this study has device metrics of its decode phase")
    legend_above(figure, 5)
    write_notes(figure, tables.points, [_about(bars, tables)])
    found = [table for table in (bars, *series) if not table.empty]
    return figure, (pd.concat(found, ignore_index=True) if found else bars)[COLUMNS]


def _bars(tables: OfflineTables) -> pd.DataFrame:
    rows = []
    for (model, batch), own in (
        main_points(tables).sort_values("batch", kind="stable").groupby(["model", "batch"], sort=False)
    ):
        found, source = phase_metrics(tables, own, "decode")
        dram = "dram_read" if "dram_read" in found else "dram"
        for metric in (dram, "warps"):
            for statistic, value in zip(("mean", "max"), found.get(metric, ()), strict=False):
                rows.append(("bar", model, batch, metric, statistic, None, value, source))
    places = {model: place for place, model in enumerate(tables.models)}
    table = pd.DataFrame(rows, columns=COLUMNS).astype({"batch": float, "value_fraction": float, "time_ms": float})
    return table.sort_values(["model", "batch"], key=lambda c: c.map(places) if c.name == "model" else c, kind="stable")


def _draw_bars(axes: Axes, own: pd.DataFrame, inputs: Inputs) -> None:
    metrics = list(dict.fromkeys(own["metric"]))
    batches = sorted(set(own["batch"]))
    colours = palette(2)
    for turn, metric in enumerate(metrics):
        for statistic in ("max", "mean"):
            rows = own[(own["metric"] == metric) & (own["statistic"] == statistic)].set_index("batch")["value_fraction"]
            shown = rows.dropna()
            solid = statistic == "mean"
            axes.bar(
                [batches.index(batch) + 0.4 * turn - 0.2 for batch in shown.index],
                100 * shown,
                width=0.36,
                color=colours[turn] if solid else "none",
                edgecolor=colours[turn],
                hatch=None if solid else "////",
                linewidth=0.6,
                label=f"{METRICS[metric]}, {statistic}",
            )
            if inputs.paper_reference is not None:
                _overlay_paper(axes, inputs, str(own["model"].iloc[0]), metric, statistic, batches, 0.4 * turn - 0.2)
    axes.set_xticks(range(len(batches)), [batch_label(batch) for batch in batches], fontsize="x-small")
    _percent(axes)
    axes.set_xlabel("Batch size (requests)", fontsize="small")
    axes.set_title(str(own["model"].iloc[0]), fontsize="small")


def _overlay_paper(
    axes: Axes, inputs: Inputs, model: str, metric: str, statistic: str, batches: list[float], shift: float
) -> None:
    """Mark the published bar by a grey line across ours."""
    assert inputs.paper_reference is not None
    paper = read_paper(
        inputs.paper_reference, "fig05", ["record_type", "model", "batch_size", "metric", "statistic", "value_pct"]
    )
    own = paper[(paper["record_type"] == "bar") & (paper["model"] == model) & (paper["statistic"] == statistic)]
    own = own[own["metric"].map(PAPER_METRICS) == metric]
    own = own[own["batch_size"].isin(batches)]
    if not own.empty:
        named = any(LABEL in str(line.get_label()) for line in axes.lines)
        axes.plot(
            [batches.index(batch) + shift for batch in own["batch_size"]],
            own["value_pct"],
            color=GREY if statistic == "mean" else "black",
            marker="_",
            markersize=9,
            linestyle="none",
            label=None if named else LABEL,
        )


def _draw_series(axes: Axes, tables: OfflineTables, model: str, batch: float) -> pd.DataFrame:
    """Draw and return the series of one batch: samples of device counters, else kernel counters along one step."""
    samples = samples_of(tables.gpu, model, batch, "decode").dropna(subset=["value_fraction"])
    found = []
    if len(samples):
        source = str(samples["profiler"].iloc[0])
        dram = "dram_read" if (samples["metric"] == "dram_read").any() else "dram"
        for metric in (dram,) if source == "gpm" else (dram, "warps"):
            own = _pooled(samples[samples["metric"] == metric])
            found.append((metric, list(own["time_ms"]), list(own["value_fraction"])))
    else:
        source = "ncu, along one step"
        step = one_step(tables, model, batch)
        for metric, column in (("dram_read", "dram_read_fraction"), ("warps", "warps_in_flight_fraction")):
            if step[column].notna().any():
                found.append((metric, *as_steps(step, column)))
    axes.set_title(f"{model}, batch {batch_label(batch)} ({source})", fontsize="small")
    if not any(times for _, times, _ in found):
        say_empty(axes, "no counters over time of this batch")
        return pd.DataFrame(columns=COLUMNS)
    rows = []
    for (metric, times, values), colour in zip(found, palette(2), strict=False):
        axes.plot(times, [100 * value for value in values], color=colour, linewidth=0.6, label=METRICS[metric])
        rows += [
            ("series", model, batch, metric, "", time, value, source) for time, value in zip(times, values, strict=True)
        ]
    _percent(axes)
    axes.set_xlabel("Time (ms)", fontsize="small")
    return pd.DataFrame(rows, columns=COLUMNS)


def _percent(axes: Axes) -> None:
    axes.set_ylim(0, 105)
    axes.set_yticks(range(0, 101, 20))
    axes.set_ylabel("% of peak", fontsize="small")


def _pooled(samples: pd.DataFrame) -> pd.DataFrame:
    ordered = samples.sort_values("time_ms", kind="stable")
    size = -(-len(ordered) // MOST_SAMPLES)
    if size <= 1:
        return ordered
    parts = pd.Series(range(len(ordered)), index=ordered.index) // size
    return ordered.groupby(parts).agg({"time_ms": "first", "value_fraction": "max"})


def _about(bars: pd.DataFrame, tables: OfflineTables) -> str:
    """Return what the sources leave out."""
    notes = list(dict.fromkeys(f"bars by {source}" for source in bars["source"]))
    if (bars["metric"] == "dram").any():
        notes.append("DRAM is read and write together where NVML counts")
    if bars["source"].str.contains(NCU).any():
        counted = tables.counters[tables.counters["phase"] == "decode"]["kernel_class"]
        kinds = ", ".join(sorted(set(counted.dropna())))
        notes.append(
            f"by ncu: mean over the counted kernels ({kinds}), weighted by their time, times the share of the step "
            "with a kernel; maximum is the busiest kernel"
        )
    return "; ".join(notes)
