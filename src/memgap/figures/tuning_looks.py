"""What the figures of a tuning share: width, short labels, and the small print."""

import pandas as pd
from matplotlib.figure import Figure

from memgap.figures.footer import write_footer
from memgap.tables.provenance import source_line

WIDTH_IN = 7.2
MOST_LINES = 3
"""So many lines name what has no number; the table names the rest."""


def short(text: str, most: int) -> str:
    """Return a text cut to so many characters."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def write_tuning_footer(figure: Figure, table: pd.DataFrame) -> None:
    """Write where the numbers come from, and what was refused or labelled, under the figure."""
    parts = [f"{int(table['blocks'].fillna(0).sum())} measurements of {len(table)} configurations"]
    if (table["servers"] == "together").any():
        parts.append("servers were started once, so intervals hold no difference between starts")
    if table["synthetic_acceptance"].fillna(False).astype(bool).any():
        parts.append("speculation with SYNTHETIC acceptance, set and not from the text")
    failed = table[table["state"].isin(["failed", "refused"])]
    names = [short(f"{row['label'] or row['experiment']}: {row['comment']}", 90) for _, row in failed.iterrows()]
    told = [f"{len(failed)} without a number: " + "; ".join(names)] if names else []
    write_footer(figure, [source_line(table, parts)], told, MOST_LINES)
