"""Panels that have nothing to show say so, whichever figure they are in."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from memgap.figures.style import say_in_place

NOTHING = "no value of this quantity was measured"


def say_where_empty(figure: Figure) -> None:
    """Write a sentence into each panel with axes but without data or a sentence of its own.

    Lines across a whole panel (bounds, limits) are no data. Axes at one place, such as those with a second scale, are
    one panel.
    """
    panels: dict[tuple[float, ...], list[Axes]] = {}
    for axes in figure.axes:
        if axes.axison and axes.get_visible():
            panels.setdefault(tuple(np.round(axes.get_position().bounds, 6)), []).append(axes)
    for panel in panels.values():
        if not any(_shows(axes) for axes in panel):
            say_in_place(panel[0], NOTHING)


def _shows(axes: Axes) -> bool:
    """Whether axes have a value, an image or a text."""
    if axes.images or axes.tables or any(text.get_text().strip() for text in axes.texts):
        return True
    lines = (line for line in axes.lines if line.get_transform() is axes.transData)
    if any((_finite(line.get_xdata()) & _finite(line.get_ydata())).any() for line in lines):
        return True
    limits = (one.get_datalim(axes.transData).get_points() for one in axes.collections)
    extents = (
        patch.get_extents().get_points() for patch in axes.patches if patch.get_data_transform() is axes.transData
    )
    return any(np.isfinite(points).all() for points in (*limits, *extents))


def _finite(values: object) -> "np.ndarray[tuple[int, ...], np.dtype[np.bool_]]":
    """Return where values are finite numbers; names of categories and dates are."""
    array = np.asarray(values)
    return np.isfinite(array) if array.dtype.kind in "fiu" else np.full(array.shape, array.size > 0)
