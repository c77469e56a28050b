"""Reads the requests, token events and telemetry that a point keeps."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from memgap.errors import DAMAGE
from memgap.store.points import PointStore
from memgap.tables.entries import damaged, entries, series_of

NAMED = ("sweep", "experiment", "key", "model", "batch_cap", "repeat")
"""Columns of what identifies a measured point."""

EVENTS = ("request", "time_s", "tokens", "choice")


def measured_points(
    plan: Mapping[str, Any], points: Path, having: str | None = "requests.csv.gz"
) -> Iterator[tuple[dict[str, Any], Path, Mapping[str, Any]]]:
    """Yield for each stored point of a sweep plan that has a file, or of every one: what identifies it, its folder, its
    point.json.

    Points that cannot be read are left out: the table of points says so.
    """
    for entry in entries(plan, points):
        if entry.point is None or not (having is None or (entry.folder / having).exists()):
            continue
        named = {
            "sweep": plan["sweep"],
            "experiment": entry.experiment,
            "key": entry.key,
            "model": entry.record["model"]["name"],
            "batch_cap": entry.record["batch_cap"],
            "repeat": entry.record["repeat"],
        }
        yield named, entry.folder, entry.point


def requests_of(folder: Path) -> pd.DataFrame:
    """Return the requests of a point; raises UserError where the file is damaged."""
    return series_of(folder, "requests")


def telemetry_of(folder: Path) -> pd.DataFrame:
    """Return the telemetry of a point; raises UserError where the file is damaged."""
    return series_of(folder, "telemetry")


def events_of(folder: Path) -> pd.DataFrame:
    """Return the token events of a point: request, time_s, tokens, of several choices also choice.

    Raises UserError where the file is damaged. Recorded points keep no single tokens: theirs are spread evenly from a
    request's first token to its last.
    """
    if not (folder / "tokens.npz").exists() and "recorded" in (PointStore(folder.parent).read(folder.name) or {}):
        return _spread(requests_of(folder))
    try:
        with np.load(folder / "tokens.npz", allow_pickle=False) as events:
            return pd.DataFrame({name: events[name] for name in EVENTS if name in events})
    except DAMAGE as error:
        raise damaged(folder / "tokens.npz", error) from error


def _spread(requests: pd.DataFrame) -> pd.DataFrame:
    rows = requests.dropna(subset=["first_token_s", "last_token_s"])
    columns = ("index", "first_token_s", "last_token_s", "output_tokens_seen")
    made = [
        pd.DataFrame({"request": int(index), "time_s": np.linspace(first_s, last_s, int(tokens))})
        for index, first_s, last_s, tokens in zip(*(rows[name] for name in columns), strict=True)
    ]
    if not made:
        return pd.DataFrame(columns=["request", "time_s", "tokens"])
    return pd.concat(made, ignore_index=True).sort_values("time_s", kind="stable", ignore_index=True).assign(tokens=1)
