"""Writes a figure as PDF and PNG and the numbers in it as CSV; equal data give equal files."""

import io
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from memgap.figures.empty import say_where_empty
from memgap.store.atomic import write_bytes, write_text

DPI = 200


def write_figure(figure: Figure, data: pd.DataFrame, pdf: Path, png: Path, csv: Path) -> None:
    """Write the three files, each whole or not at all, without time stamps; panels without data say so."""
    say_where_empty(figure)
    as_pdf, as_png = drawn(figure)
    write_bytes(pdf, as_pdf)
    write_bytes(png, as_png)
    write_text(csv, data.to_csv(index=False, lineterminator="\n", float_format="%.9g"))


def drawn(figure: Figure) -> tuple[bytes, bytes]:
    """Return the figure as PDF and as PNG."""
    figure.draw_without_rendering()  # lays out once; else each form does it again, in a drawing of its own
    figure.set_layout_engine(None)
    pdf, png = io.BytesIO(), io.BytesIO()
    told = {"CreationDate": None, "ModDate": None, "Producer": None, "Creator": "memgap"}
    figure.savefig(pdf, format="pdf", dpi=DPI, metadata=told)
    figure.savefig(png, format="png", dpi=DPI, metadata={"Software": "memgap"})
    return pdf.getvalue(), png.getvalue()
