"""Writes tables as Parquet, CSV, Markdown, LaTeX and pages; equal tables give equal files."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from memgap.store.atomic import write_bytes, write_text
from memgap.tables.pages import study_page
from memgap.tables.spec import TableSpec

_LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


Content = pd.DataFrame | str | Mapping[str, pd.DataFrame]
"""What a table's `make` returns for one of its files: a table, a page's text, or the tables of a folder by name."""


def forms(declared: TableSpec, table: pd.DataFrame, source: str) -> dict[str, Content]:
    """Return a table in each form that its declaration writes; `source` says where its numbers come from."""
    pages = {".html": study_page, ".md": markdown, ".tex": latex}
    return {
        name: pages[Path(path).suffix](declared.title, table, source) if Path(path).suffix in pages else table
        for name, path in declared.writes.items()
    }


def write_contents(contents: Mapping[str, Content], paths: Mapping[str, Path], digits: int) -> None:
    """Write each content to the path of its name, each file whole or not at all."""
    for name, path in paths.items():
        content = contents[name]
        if isinstance(content, str):
            write_text(path, content)
        elif isinstance(content, pd.DataFrame):
            write_table(content, path, digits=digits)
        else:
            for stem, table in content.items():
                write_table(table, path / f"{stem}.csv", digits=digits)


def write_table(table: pd.DataFrame, *paths: Path, digits: int = 9) -> None:
    """Write a table to each path, .parquet or .csv, with numbers of so many digits (all that they need where 0)."""
    for path in paths:
        if path.suffix == ".parquet":
            buffer = io.BytesIO()
            table.to_parquet(buffer, index=False)
            write_bytes(path, buffer.getvalue())
        else:
            form = f"%.{digits}g" if digits else None
            write_text(path, table.to_csv(index=False, lineterminator="\n", float_format=form))


def markdown(title: str, table: pd.DataFrame, source: str) -> str:
    """Return a table as a Markdown page."""
    rows = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in _cells(table)]
    lines = [_row(list(table.columns)), _row(["---"] * len(table.columns)), *map(_row, rows)]
    return f"# {title}\n\n" + "\n".join(lines) + f"\n\n{source}\n"


def latex(title: str, table: pd.DataFrame, source: str) -> str:
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
