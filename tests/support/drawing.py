"""Figures drawn from tables in memory."""

from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from memgap.figures.spec import figures, modules
from memgap.tables.inputs import Inputs
from memgap.tables.offline_study import OfflineTables


def draw(name: str, inputs: Inputs) -> tuple[Figure, pd.DataFrame]:
    """Return a figure and the numbers in it."""
    drawn: tuple[Figure, pd.DataFrame] = import_module(modules()[name]).draw(inputs)
    return drawn


def reading(table: str) -> list[str]:
    """Return the names of the figures that have to be given a table, such as "sweep.points"."""
    return sorted(name for name, figure in figures().items() if table in figure.reads)


def of_sweep(points: pd.DataFrame, advice: dict[str, Any] | None = None, **more: Any) -> Inputs:
    """Return inputs of a sweep's table; `kernels` and `predictions` are further tables."""
    names = {"kernels": "sweep.kernels", "predictions": "predictions.predictions"}
    given = {names[name]: more.pop(name) for name in list(more) if name in names}
    return Inputs({"sweep.points": points, "sweep.advice": advice or {}, **given}, **more)


def of_study(
    tables: OfflineTables | None = None, sweep: pd.DataFrame | None = None, paper: Path | None = None
) -> Inputs:
    """Return inputs of an offline study's tables, with a sweep's beside it."""
    kinds = {"offline" if kind == "points" else kind: table for kind, table in vars(tables).items()} if tables else {}
    given = {f"study.{kind}": table for kind, table in kinds.items()}
    return Inputs(given | ({} if sweep is None else {"sweep.points": sweep}), paper_reference=paper)
