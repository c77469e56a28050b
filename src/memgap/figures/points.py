"""Which points a figure draws, and how: lines from good points, marks for the others, none left out in silence."""

from collections import Counter

import pandas as pd

GOOD, PREEMPTED, FAILED = "good", "preempted", "failed"


def fate(table: pd.DataFrame) -> "pd.Series[str]":
    """Return for each row "good", "preempted" (measured, but requests were evicted from the KV cache) or "failed"."""
    preempted = table["flags"].fillna("").str.contains("preempted").astype(bool)
    ok = (table["status"] == "ok").fillna(False).astype(bool)
    fates = pd.Series(FAILED, index=table.index)
    fates[ok & preempted] = PREEMPTED
    fates[ok & ~preempted] = GOOD
    return fates


def per_cap(table: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Return one row a (model, batch_cap, cap_side, fate) with median, min and max of `columns` over repeats.

    Columns: model, batch_cap, cap_side, fate, repeats, then each column with its median and `_low`, `_high` beside it.
    """
    rows = []
    keyed = table.assign(fate=fate(table))
    keyed = keyed[keyed["fate"] != FAILED]
    for (model, cap, side, kind), group in keyed.groupby(["model", "batch_cap", "cap_side", "fate"], sort=False):
        row: dict[str, object] = {
            "model": model,
            "batch_cap": cap,
            "cap_side": side,
            "fate": kind,
            "repeats": len(group),
        }
        for column in columns:
            row[column] = group[column].median()
            row[f"{column}_low"], row[f"{column}_high"] = group[column].min(), group[column].max()
        rows.append(row)
    names = [name for column in columns for name in (column, f"{column}_low", f"{column}_high")]
    head = ["model", "batch_cap", "cap_side", "fate", "repeats"]
    found = pd.DataFrame(rows, columns=[*head, *names])
    return found.sort_values(["model", "cap_side", "batch_cap"], kind="stable", ignore_index=True)


def failures(table: pd.DataFrame) -> pd.DataFrame:
    """Return model, batch_cap and status of the points without a measurement."""
    failed = table[fate(table) == FAILED]
    return failed[["model", "batch_cap", "status"]].reset_index(drop=True)


def failure_note(table: pd.DataFrame) -> str:
    """Return a line such as "not drawn: 2 oom (opt-1.3b cap 512, 768)", or "" where every point is drawn."""
    failed = failures(table)
    if failed.empty:
        return ""
    parts = []
    for status, count in sorted(Counter(failed["status"]).items()):
        which = failed[failed["status"] == status]
        models = [
            f"{model} cap {', '.join(str(cap) for cap in sorted(set(group['batch_cap'])))}"
            for model, group in which.groupby("model", sort=False)
        ]
        parts.append(f"{count} {status} ({'; '.join(models)})")
    return "without a measurement: " + ", ".join(parts)
