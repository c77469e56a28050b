"""Which rows of an offline study a figure draws: one setting a model, the unprofiled points, batch 1 and MAX."""

import pandas as pd

from memgap.tables.fate import GOOD, fate
from memgap.tables.offline_study import OfflineTables
from memgap.tables.once import once

SETTING = ("prompt_tokens", "output_tokens", "mode", "attention_backend", "async_scheduling", "detokenize")
NONE_MEASURED = "no point of this study was measured"


@once
def unprofiled(tables: OfflineTables) -> pd.DataFrame:
    """Return the good points that ran without a profiler: only their wall times count."""
    points = tables.points
    return points[(fate(points) == GOOD) & points["profiler"].fillna("none").isin(["none", ""])]


def main_setting(points: pd.DataFrame, columns: tuple[str, ...] = SETTING) -> pd.DataFrame:
    """Return, for each model, the rows of the one setting that was measured at the most batches (the first of equals).

    A setting is the values of `columns`; rows at other prompt lengths, say, would not belong on one curve.
    """
    kept = []
    for _, own in points.groupby("model", sort=False):
        settings = own.groupby(list(columns), sort=False, dropna=False)["batch"].nunique()
        if settings.empty:
            continue
        best = settings.idxmax()
        matching = pd.Series(True, index=own.index)
        for column, value in zip(columns, best if isinstance(best, tuple) else (best,), strict=True):
            matching &= own[column].isna() if pd.isna(value) else own[column] == value
        kept.append(own[matching])
    return pd.concat(kept) if kept else points.iloc[:0]


@once
def main_points(tables: OfflineTables) -> pd.DataFrame:
    """Return the good unprofiled points of each model's main setting."""
    return main_setting(unprofiled(tables))


def ends(table: pd.DataFrame) -> list[float]:
    """Return the smallest and the largest batch of a table, one if they are the same, none if it is empty."""
    batches = sorted(set(table["batch"].dropna()))
    return batches if len(batches) < 2 else [batches[0], batches[-1]]


def richest_model(table: pd.DataFrame, preferred: str | None = None) -> str | None:
    """Return `preferred` where the table has it, else the model with the most batches, the first of equals."""
    if table.empty:
        return None
    models = set(table["model"])
    if preferred in models:
        return preferred
    counts = table.groupby("model", sort=False)["batch"].nunique()
    return str(counts.idxmax())


def batch_label(batch: float) -> str:
    """Return a batch as text without decimals."""
    return f"{batch:g}"
