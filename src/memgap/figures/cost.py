"""What a million output tokens costs, in USD and in energy, over the tokens a second of a user."""

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from memgap.declared.figures import FigureSpec
from memgap.figures.footer import write_provenance
from memgap.figures.marks import bars
from memgap.figures.per_user import ENERGY, GPU, USER, per_user
from memgap.figures.points import bars_note
from memgap.figures.style import legend_above, log2_axis, log_axis, model_looks, new_figure, say_in_place
from memgap.tables.inputs import Inputs
from memgap.tuning.formulas import HOUR_S, MILLION, price

USD = "usd_per_million_output_tokens"
FIGURE = FigureSpec(
    name="cost",
    title="USD and energy of output tokens over the tokens a second of a user",
    reads=("sweep.points",),
    plan="prices",
    caption="""
Left, USD for a million output tokens at the price of a GPU hour in `usd_per_gpu_hour`; right, joules of the GPU's
board for one output token, as NVML counts them over the whole window. x is that of the frontier. Both fall to the
left, where more users share a step, until the memory wall; a bar is the 95 % interval of the throughput, or of the
repeats.
""",
)


def draw(inputs: Inputs) -> tuple[Figure, pd.DataFrame]:
    """Return the figure and the plotted numbers (one row a model and load; means over repeats)."""
    data = with_usd(per_user(inputs["sweep.points"]), inputs.plan)
    figure, panels = new_figure(2, height_in=3.6)
    labels = {USD: "USD per million output tokens", ENERGY: "Energy per output token (J)"}
    for axes, (column, label) in zip(panels, labels.items(), strict=True):
        drawn = data.dropna(subset=[column])
        for model, (colour, marker) in model_looks(list(dict.fromkeys(data["model"]))).items():
            own = drawn[drawn["model"] == model]
            if own.empty:
                continue
            look: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 4.5, "capsize": 2}
            axes.errorbar(
                own[USER],
                own[column],
                xerr=bars(own, USER, f"{USER}_low", f"{USER}_high"),
                yerr=bars(own, column, f"{column}_low", f"{column}_high"),
                label=str(model),
                **look,
            )
        axes.set_xlabel("Output tokens/s of a user")
        axes.set_ylabel(label)
        log2_axis(axes, list(drawn[USER]))
        if not drawn.empty:
            log_axis(axes, "y")
    if data.empty:
        say_in_place(panels[0], "no point of this sweep was measured")
    elif data[USD].isna().all():
        names = ", ".join(sorted(set(data["gpu_name"])))
        say_in_place(panels[0], f"no price: name one in usd_per_gpu_hour for {names}")
    if data[ENERGY].isna().all():
        say_in_place(panels[1], "no point has the energy of its GPU")
    legend_above(figure, 5)
    prices = data.dropna(subset=["usd_per_gpu_hour"])[["gpu_name", "usd_per_gpu_hour"]].drop_duplicates()
    note = "; ".join(f"{name} at {usd:g} USD an hour" for name, usd in prices.itertuples(index=False))
    write_provenance(figure, inputs["sweep.points"], bars="; ".join(one for one in (bars_note(data), note) if one))
    return figure, data


def with_usd(data: pd.DataFrame, prices: Any) -> pd.DataFrame:
    """Return the rows of `per_user` with the USD for a million output tokens, not a number without a price."""
    found = [price({"gpu_name": None if name == "CPU" else name}, prices) for name in data["gpu_name"]]
    usd = pd.Series(found, index=data.index, dtype=float)
    ends = {"": "", "_low": "_high", "_high": "_low"}
    costs = {f"{USD}{end}": usd / HOUR_S / data[f"{GPU}{other}"] * MILLION for end, other in ends.items()}
    return data.assign(usd_per_gpu_hour=usd, **costs)
