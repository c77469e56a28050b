"""Writes a table of the study as CSV, Markdown, LaTeX and a page; equal tables give equal files."""

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from memgap.store.atomic import write_text
from memgap.tables.pages import study_page

_LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


def write_forms(
    table: pd.DataFrame, title: str, source: str, csv: Path, html: Path, md: Path | None = None, tex: Path | None = None
) -> None:
    """Write a table in each form that has a path; `source` says where its numbers come from."""
    write_text(csv, table.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
    write_text(html, study_page(title, table, source))
    if md is not None:
        write_text(md, markdown(table, title, source))
    if tex is not None:
        write_text(tex, latex(table, title, source))


def markdown(table: pd.DataFrame, title: str, source: str) -> str:
    """Return a table as a Markdown page."""
    rows = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in _cells(table)]
    lines = [_row(list(table.columns)), _row(["---"] * len(table.columns)), *map(_row, rows)]
    return f"# {title}\n\n" + "\n".join(lines) + f"\n\n{source}\n"


def latex(table: pd.DataFrame, title: str, source: str) -> str:
    """Return a table as a LaTeX table that needs no package; the caption has the title and the source."""
    aligned = "".join("r" if pd.api.types.is_numeric_dtype(table[column]) else "l" for column in table.columns)
    lines = [[_escaped(cell) for cell in row] for row in ([str(one) for one in table.columns], *_cells(table))]
    rows = [" & ".join(row) + r" \\" for row in lines]
    body = "\n".join([r"\hline", rows[0], r"\hline", *rows[1:], r"\hline"])
    caption = f"{_escaped(title)}. {_escaped(source)}."
    begin = f"\\begin{{table}}\n\\caption{{{caption}}}\n\\begin{{tabular}}{{{aligned}}}"
    return f"{begin}\n{body}\n\\end{{tabular}}\n\\end{{table}}\n"


def _cells(table: pd.DataFrame) -> list[list[str]]:
    return [[_text(value) for value in row] for row in table.itertuples(index=False, name=None)]


def _text(value: object) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.4g}" if isinstance(value, float) and not value.is_integer() else _plain(value)


def _plain(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
