"""Decode steps in the roofline of their GPU, predicted and measured, and their time over the batch.

The intensity of measured points is analytic, from the model's shape, the mean batch and the mean context; their FLOP/s
is that work by the measured step. Predictions are for one context length, so a measured point with another one stands
beside the line.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from memgap.errors import UserError
from memgap.figures.footer import write_provenance
from memgap.figures.spec import FigureSpec
from memgap.figures.style import ALERT, GREY, log2_axis, model_looks, new_figure, say_in_place
from memgap.roofline.gpus import Gpu, find_gpu, gpu_of_nvml
from memgap.tables.fate import DRAWN, GOOD, PREEMPTED
from memgap.tables.inputs import Inputs
from memgap.tables.roofline_error import compare_steps, online_points

X, Y, STEP = "intensity_flop_byte", "flop_s", "step_ms"
COLUMNS = ["kind", "model", "gpu", "batch", "context_tokens", X, Y, STEP, "predicted_ms", "fits", "fate"]
PREDICTED, MEASURED = "predicted", "measured"
_SPAN = (0.5, 1000.0)
_NAMED_BATCHES = (1, 8, 64)
FIGURE = FigureSpec(
    name="roofline",
    title="The roofline",
    reads=("sweep.points", "predictions.predictions", "config.models"),
    caption="""
Left, decode steps in the roofline of their GPU: operations a second over operations a byte, under the memory roof
(slope), the tensor units' roof and that of FP32. Dots on lines are predicted for batches at one context, from the
datasheet and the model's shape; open markers are measured points, with the analytic intensity of their mean step. The
distance between them is what the engine leaves on the table. The dotted line is attention's own intensity: the larger
the batch, the more of a step stands there. Right, the same as step times over the batch; lines are dashed where the
KV cache would not hold the batch. Formulas and errors: docs/roofline.md.
""",
)


def draw(inputs: Inputs) -> tuple[Figure, pd.DataFrame]:
    """Return the figure and the plotted numbers (predictions, and measured means over repeats)."""
    if "predictions.predictions" not in inputs:
        raise UserError("figure roofline: no predictions are given; name them in figures.roofline.predictions.")
    measured = measured_points(inputs)
    gpu = _gpu(inputs, measured)
    data = pd.concat([_predicted(inputs["predictions.predictions"], gpu), measured], ignore_index=True)[COLUMNS]
    data = data[data["gpu"] == gpu.alias].reset_index(drop=True)
    figure, (roof, time) = new_figure(2, width_in=7.6, height_in=3.9)
    looks = model_looks(list(dict.fromkeys(data["model"])))
    _draw_roofs(roof, gpu, inputs["predictions.predictions"])
    for model, (colour, marker) in looks.items():
        own = data[data["model"] == model]
        for axes, x, y in ((roof, X, Y), (time, "batch", STEP)):
            _draw_model(axes, own, x, y, colour, marker, model)
    _name_batches(roof, data[data["kind"] == PREDICTED])
    roof.set_xlabel("Arithmetic intensity of the step (FLOP/B)")
    roof.set_ylabel("FLOP/s")
    time.set_xlabel("Mean batch (sequences that decode in a step)")
    time.set_ylabel("Decode step (ms)")
    log2_axis(time, list(data["batch"]))
    time.set_yscale("log")
    time.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    within_a_decade = data[STEP].max() < 10 * data[STEP].min()
    time.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if within_a_decade else "")
    contexts = sorted(set(data.loc[data["kind"] == PREDICTED, "context_tokens"]))
    roof.set_title(f"Roofline of the {gpu.alias}")
    time.set_title(f"Step time, lines at {', '.join(f'{one:g}' for one in contexts)} tokens of context")
    if data.empty:
        say_in_place(time, "neither predicted nor measured")
    else:
        time.set_ylim(bottom=data[STEP].min() / 2.5)
        if (data["fate"] == PREEMPTED).any():
            time.plot([], [], "o", markersize=4.5, markerfacecolor="none", markeredgecolor=ALERT, label="preempted")
        time.legend(fontsize="x-small", loc="lower right")
    note = (
        "lines with dots: predicted by the roofline, nothing fitted, dashed beyond the KV cache; "
        "open markers: measured, with analytic intensity"
    )
    write_provenance(figure, inputs["sweep.points"], bars=note)
    return figure, data


def measured_points(inputs: Inputs) -> pd.DataFrame:
    """Return the points of one server as rows of the figure, means over the repeats of a cap."""
    points = online_points(inputs["sweep.points"])
    points = points[(points["replicas"] <= 1) & points["fate"].isin(DRAWN)]
    if points.empty:
        return pd.DataFrame(columns=COLUMNS)
    compared = compare_steps(points, inputs.architectures)
    compared = compared.assign(
        gpu=compared["gpu_name"].map(lambda name: gpu.alias if (gpu := gpu_of_nvml(name)) else None),
        **{Y: compared["achieved_flop_s"]},
    ).dropna(subset=[X, Y])
    numbers = ["batch", "context_tokens", X, Y, STEP, "predicted_ms"]
    keys = ["model", "dataset", "gpu", "batch_cap", "fate"]
    means = compared.groupby(keys, sort=False, as_index=False)[numbers].mean()
    return means.assign(kind=MEASURED, fits="yes")[COLUMNS]


def _gpu(inputs: Inputs, measured: pd.DataFrame) -> Gpu:
    """Return the GPU whose roofline is drawn: that of the measured points, else the first of the predictions."""
    found = list(measured["gpu"].dropna()) or list(inputs["predictions.predictions"]["gpu"])
    return find_gpu(str(found[0]))


def _predicted(predictions: pd.DataFrame, gpu: Gpu) -> pd.DataFrame:
    own = predictions[predictions["gpu"] == gpu.alias]
    return own.assign(kind=PREDICTED, predicted_ms=own[STEP], fate=GOOD)[COLUMNS]


def _draw_roofs(axes: Axes, gpu: Gpu, predictions: pd.DataFrame) -> None:
    """Draw the memory roof and the compute roofs of the dtypes in use, and where attention stands."""
    dtypes = set(predictions["dtype"]) or {"float16"}
    kind = "bf16" if dtypes == {"bfloat16"} else "fp16"
    roofs = [(gpu.flop_s[kind], f"{kind.upper()} tensor, dense"), (gpu.flop_s.get("fp32"), "FP32")]
    intensity = np.array(_SPAN)
    highest = max(peak for peak, _ in roofs if peak)
    ridge = highest / gpu.bandwidth_bytes_s
    slope = np.array([_SPAN[0], ridge])
    axes.plot(slope, slope * gpu.bandwidth_bytes_s, color="black", linewidth=1.2)
    for peak, name in roofs:
        if peak:
            begin = peak / gpu.bandwidth_bytes_s
            colour = "black" if peak == highest else GREY
            axes.plot([begin, _SPAN[1]], [peak, peak], color=colour, linewidth=1.2 if peak == highest else 0.8)
            axes.annotate(
                f"{name}: {peak / 1e12:.0f} TFLOP/s",
                (_SPAN[1], peak),
                xytext=(-2, 3 if peak == highest else -3),
                textcoords="offset points",
                ha="right",
                va="bottom" if peak == highest else "top",
                fontsize="x-small",
                color=colour,
            )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(*intensity)
    axes.set_ylim(_SPAN[0] * gpu.bandwidth_bytes_s / 2.5, highest * 2.5)
    axes.annotate(
        f"{gpu.bandwidth_bytes_s / 1e12:.2f} TB/s",
        (ridge / 2, ridge / 2 * gpu.bandwidth_bytes_s),
        xytext=(-6, 3),
        textcoords="offset points",
        ha="right",
        fontsize="x-small",
    )
    attention = predictions.loc[predictions["gpu"] == gpu.alias, "attention_intensity_flop_byte"].dropna()
    for value in sorted(set(attention.round(1))):
        axes.axvline(value, color=GREY, linewidth=0.8, linestyle=":", zorder=1)
        axes.annotate(
            "attention alone",
            (value, highest * 2.2),
            xytext=(2, 0),
            textcoords="offset points",
            rotation=90,
            va="top",
            fontsize="x-small",
            color=GREY,
        )


def _draw_model(axes: Axes, own: pd.DataFrame, x: str, y: str, colour: object, marker: str, model: str) -> None:
    line = own[own["kind"] == PREDICTED].sort_values("batch")
    held = line[line["fits"] == "yes"]
    beyond = line[line["batch"] >= held["batch"].max()] if not held.empty else line
    dots: dict[str, Any] = {"color": colour, "linewidth": 1.0, "marker": ".", "markersize": 3.5}
    axes.plot(held[x], held[y], **dots)
    if len(beyond) > 1 or held.empty:
        axes.plot(beyond[x], beyond[y], linestyle="--", **dots)
    axes.plot([], [], marker=marker, markerfacecolor="none", markersize=4.5, linewidth=1.0, color=colour, label=model)
    for good in (True, False):
        points = own[(own["kind"] == MEASURED) & ((own["fate"] == GOOD) == good)]
        if not points.empty:
            axes.plot(
                points[x],
                points[y],
                linestyle="none",
                marker=marker,
                markersize=4.5,
                markerfacecolor="none",
                markeredgecolor=colour if good else ALERT,
            )


def _name_batches(axes: Axes, predicted: pd.DataFrame) -> None:
    """Write the batch beside some predicted points of the first model."""
    if predicted.empty:
        return
    own = predicted[predicted["model"] == predicted["model"].iloc[0]].sort_values("batch")
    for row in own[own["batch"].isin(_NAMED_BATCHES)].to_dict("records"):
        axes.annotate(
            f"B={row['batch']:g}",
            (row[X], row[Y]),
            xytext=(-3, 5),
            textcoords="offset points",
            ha="right",
            fontsize="xx-small",
        )
