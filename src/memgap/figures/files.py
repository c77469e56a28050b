"""Writes a figure as PDF and PNG and the numbers in it as CSV; equal data give equal files."""

import io
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from memgap.store.atomic import write_bytes, write_text

PNG_DPI = 200


def write_figure(figure: Figure, data: pd.DataFrame, pdf: Path, png: Path, csv: Path) -> None:
    """Write the three files, each whole or not at all, without time stamps."""
    figure.draw_without_rendering()  # lays out once; else each format does it again, in a drawing of its own
    figure.set_layout_engine(None)
    for path, form, metadata in (
        (pdf, "pdf", {"CreationDate": None, "ModDate": None, "Producer": None, "Creator": "memgap"}),
        (png, "png", {"Software": "memgap"}),
    ):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=form, dpi=PNG_DPI, metadata=metadata)
        write_bytes(path, buffer.getvalue())
    write_text(csv, data.to_csv(index=False, lineterminator="\n", float_format="%.9g"))
