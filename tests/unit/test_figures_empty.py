"""A panel without data says so; one that shows something, or says something itself, is left alone."""

from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from memgap.figures.empty import NOTHING, say_where_empty
from memgap.figures.style import say_in_place

NAN = float("nan")
SHOWN: dict[str, tuple[Callable[[Axes], object], bool]] = {
    "nothing": (lambda axes: None, False),
    "a line": (lambda axes: axes.plot([1, 2], [3, 4]), True),
    "a line of no numbers": (lambda axes: axes.plot([1, 2], [NAN, NAN]), False),
    "an empty line": (lambda axes: axes.plot([], [], label="x"), False),
    "a point by name": (lambda axes: axes.plot(["a"], [1.0]), True),
    "a bound": (lambda axes: axes.axhline(3.0), False),
    "bars": (lambda axes: axes.bar([1, 2], [1.0, 2.0]), True),
    "no bars": (lambda axes: axes.bar([], []), False),
    "points": (lambda axes: axes.scatter([1], [2]), True),
    "no points": (lambda axes: axes.scatter([], []), False),
    "an area": (lambda axes: axes.fill_between([1, 2], [0, 0], [1, 1]), True),
    "an image": (lambda axes: axes.imshow(np.eye(2)), True),
    "a sentence": (lambda axes: say_in_place(axes, "none here"), True),
    "no axes": (lambda axes: axes.set_axis_off(), True),
}


@pytest.mark.parametrize("kind", SHOWN)
def test_only_panels_without_data_get_the_sentence(kind: str) -> None:
    draw, shows = SHOWN[kind]
    axes = Figure().add_subplot()
    draw(axes)
    say_where_empty(axes.figure)  # type: ignore[arg-type]
    assert [text.get_text() for text in axes.texts].count(NOTHING) == (0 if shows else 1)


def test_a_second_scale_is_no_panel_of_its_own() -> None:
    axes = Figure().add_subplot()
    axes.plot([1], [1])
    second = axes.twinx()
    say_where_empty(axes.figure)  # type: ignore[arg-type]
    assert not axes.texts and not second.texts
