"""The paper's published numbers as an overlay, read from a folder at run time and never kept."""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from memgap.errors import DAMAGE, UserError
from memgap.figures.style import GREY

LABEL = "paper (H100, 64 GB)"


def read_paper(folder: Path, figure: str, columns: list[str]) -> pd.DataFrame:
    """Return the paper's table of a figure; raises UserError where the folder has no such file with these columns."""
    path = folder / f"{figure}.csv"
    try:
        table = pd.read_csv(path)
    except DAMAGE as error:
        raise UserError(f"paper_reference: cannot read {path}: {error}.") from error
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise UserError(f"paper_reference: {path} has no column {missing[0]!r}.")
    return table


def overlay(axes: Axes, table: pd.DataFrame, x: str, y: str) -> None:
    """Draw the paper's lines, one a model, in grey under ours; the legend names them once."""
    for number, (_, own) in enumerate(table.groupby("model", sort=False)):
        label = LABEL if number == 0 else None
        axes.plot(own[x], own[y], color=GREY, linewidth=1, linestyle="--", zorder=1, label=label)
