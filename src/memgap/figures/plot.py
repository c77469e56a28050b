"""Draws a figure by its name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from matplotlib.figure import Figure

from memgap.config.load import known
from memgap.errors import UserError
from memgap.figures import fig02, fig03, fig10, fig11, fig12, fig13, roofline
from memgap.figures.inputs import FigureInputs

FIGURES: dict[str, Callable[[FigureInputs], tuple[Figure, pd.DataFrame]]] = {
    "fig02": fig02.draw,
    "fig03": fig03.draw,
    "fig10": fig10.draw,
    "fig11": fig11.draw,
    "fig12": fig12.draw,
    "fig13": fig13.draw,
    "roofline": roofline.draw,
}


def draw(name: str, inputs: FigureInputs) -> tuple[Figure, pd.DataFrame]:
    """Return a figure and the numbers in it; raises UserError for an unknown name."""
    known(name, FIGURES, "figure", "plot")
    return FIGURES[name](inputs)


def read_advice(paths: list[Path]) -> dict[str, dict[str, Any]]:
    """Return the advice files by model; raises UserError where one is none."""
    advice = {}
    for path in paths:
        try:
            one = yaml.safe_load(path.read_text(encoding="utf-8"))
            advice[str(one["model"])] = {**one, "candidates": list(one["candidates"]), "rule": dict(one["rule"])}
        except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: not an advice file ({error}); let Snakemake make it again.") from error
    return advice
