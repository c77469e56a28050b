"""Draws a figure by its name."""

from collections.abc import Callable

import pandas as pd
from matplotlib.figure import Figure

from memgap.config.load import known
from memgap.figures import (
    fig01,
    fig02,
    fig03,
    fig04,
    fig05,
    fig06,
    fig07,
    fig08,
    fig09,
    fig10,
    fig11,
    fig12,
    fig13,
    kv_waste,
    memory_over_time,
    roofline,
    static_batching,
    timeshare,
)
from memgap.figures.inputs import FigureInputs

Draw = Callable[[FigureInputs], tuple[Figure, pd.DataFrame]]
ONLINE: dict[str, Draw] = {
    "fig02": fig02.draw,
    "fig03": fig03.draw,
    "fig10": fig10.draw,
    "fig11": fig11.draw,
    "fig12": fig12.draw,
    "fig13": fig13.draw,
    "roofline": roofline.draw,
}
"""Figures of a sweep of servers."""
OFFLINE: dict[str, Draw] = {
    "fig01": fig01.draw,
    "fig04": fig04.draw,
    "fig05": fig05.draw,
    "fig06": fig06.draw,
    "fig07": fig07.draw,
    "fig08": fig08.draw,
    "fig09": fig09.draw,
    "timeshare": timeshare.draw,
}
"""Figures of an offline study."""
COMPARISONS: dict[str, Draw] = {
    "static_batching": static_batching.draw,
    "memory_over_time": memory_over_time.draw,
    "kv_waste": kv_waste.draw,
}
"""Figures of a comparison of engines."""
FIGURES: dict[str, Draw] = {**ONLINE, **OFFLINE, **COMPARISONS}


def draw(name: str, inputs: FigureInputs) -> tuple[Figure, pd.DataFrame]:
    """Return a figure and the numbers in it; raises UserError for an unknown name."""
    known(name, FIGURES, "figure", "plot")
    return FIGURES[name](inputs)
