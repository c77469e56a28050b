"""Which points a figure draws, and how: lines from good points, marks for the others, none left out in silence."""

import math
from collections import Counter
from collections.abc import Sequence

import pandas as pd

from memgap.stats.intervals import column_interval, named_sources
from memgap.tables.fate import DRAWN, GOOD, INVALID, UNNEEDED, fate, replicated
from memgap.tables.provenance import foreign


def per_cap(table: pd.DataFrame, columns: list[str], by: Sequence[str] = ()) -> pd.DataFrame:
    """Return one row a (model, batch_cap, cap_side, fate) with the mean of `columns` over repeats and its interval.

    Columns: model, batch_cap, cap_side, fate, repeats, interval_source, then each column with its mean and beside it
    `_low` and `_high`, the bounds of the 95 % interval, not a number where none is known, and `averaging`. Columns in
    `by` tell rows apart as well and stand behind the model. Models stay in the table's order; replicated points are
    left out.
    """
    identity = ["model", *by, "batch_cap", "cap_side", "fate"]
    rows = []
    keyed = table.assign(fate=fate(table))
    keyed = keyed[keyed["fate"].isin(DRAWN) & ~replicated(keyed)]
    places = {model: place for place, model in enumerate(dict.fromkeys(table["model"]))}
    for values, group in keyed.groupby(identity, sort=False, dropna=False):
        intervals = {column: column_interval(group, column) for column in columns}
        row: dict[str, object] = {
            **dict(zip(identity, values, strict=True)),
            "repeats": len(group),
            "interval_source": named_sources(intervals),
        }
        for column in columns:
            row[column] = group[column].mean()
            found = intervals[column]
            row[f"{column}_low"], row[f"{column}_high"] = (found.low, found.high) if found else (math.nan, math.nan)
        row["averaging"] = " and ".join(sorted(set(group["averaging"].dropna())))
        rows.append(row)
    names = [name for column in columns for name in (column, f"{column}_low", f"{column}_high")]
    data = pd.DataFrame(rows, columns=[*identity, "repeats", "interval_source", *names, "averaging"])
    data["place"] = data["model"].map(places)
    ordered = data.sort_values(["place", *by, "cap_side", "batch_cap"], kind="stable", ignore_index=True)
    return ordered.drop(columns="place")


def offered(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return the points with what was asked of the server in the column `asked`, and its label.

    That is the offered rate where some point of ours has one, else the requests in flight; points without it are left
    out. Results of other tools follow ours.
    """
    ours = table[~foreign(table)]
    rated = (table if ours.empty else ours)["rate_req_s"].notna().any()
    asked = table["rate_req_s" if rated else "batch_cap"].astype(float)
    found = table.assign(asked=asked)[asked.notna()]
    return found, "Offered rate (requests/s)" if rated else "Requests in flight (cap)"


def bars_note(data: pd.DataFrame) -> str:
    """Return the line that says what the bars of plotted numbers with a column interval_source are; "" without any."""
    if data.empty:
        return ""
    sources = [str(one) for one in dict.fromkeys(data["interval_source"].dropna()) if one]
    if not sources:
        return "no bars: no interval is known of points measured once"
    return f"markers are means, bars their intervals: {'; '.join(sources)}"


def failures(table: pd.DataFrame) -> pd.DataFrame:
    """Return model, dataset, batch_cap and status ("invalid": the verdict rules it out) of the points not drawn."""
    fates = fate(table)
    failed = table.assign(status=table["status"].where(fates != INVALID, INVALID))[~fates.isin([*DRAWN, UNNEEDED])]
    return failed[["model", "dataset", "batch_cap", "status"]].reset_index(drop=True)


def failure_note(table: pd.DataFrame, by: Sequence[str] = ("model",)) -> str:
    """Return a line such as "not drawn: 2 oom (opt-1.3b cap 512, 768)", or "" where every point is drawn.

    The columns in `by` (model, dataset) name a point beside its cap.
    """
    failed = failures(table)
    if failed.empty:
        return ""
    counts = sorted(Counter(failed["status"]).items())
    return "not drawn: " + ", ".join(
        f"{count} {status} ({named(failed[failed['status'] == status], by)})" for status, count in counts
    )


def suspect_note(table: pd.DataFrame, by: Sequence[str] = ("model",)) -> str:
    """Return a line that names the drawn points with the verdict "suspect" and the checks that doubt them, or "".

    The columns in `by` name a point beside its cap.
    """
    doubted = table[(table["verdict"] == "suspect").fillna(False).astype(bool) & (fate(table) == GOOD)]
    if doubted.empty:
        return ""
    groups = doubted.groupby(doubted["flags"].str.replace(";", ", "), sort=True)
    return "suspect: " + "; ".join(f"{named(group, by)} ({checks})" for checks, group in groups)


def named(rows: pd.DataFrame, by: Sequence[str] = ("model",)) -> str:
    """Return the points of a table by model (or the columns in `by`) and cap: "opt-1.3b cap 8, 32; opt-2.7b cap 8"."""
    return "; ".join(
        f"{' '.join(map(str, names))} cap {', '.join(str(cap) for cap in sorted(set(group['batch_cap'].dropna())))}"
        for names, group in rows.groupby(list(by), sort=False, dropna=False)
    )
