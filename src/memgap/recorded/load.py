"""Brings the recorded points of a session back into a results folder."""

from collections.abc import Collection
from pathlib import Path

from memgap.kinds.registry import kind_of
from memgap.recorded.files import THINNED, points_file, read_points, read_series, series_file, table_gz
from memgap.store.points import PointStore


def restore(recorded: Path, session: str, keys: Collection[str], store: PointStore) -> int:
    """Put those recorded points of a session whose keys are asked for into the store; returns how many it has now.

    Own measurements are never replaced. A restored point says in `recorded` where it came from.
    """
    series = {kind: read_series(series_file(recorded, session, kind)) for kind in THINNED}
    restored = 0
    for point in read_points(points_file(recorded, session)):
        key = point["key"]
        if key not in keys:
            continue
        restored += 1
        if measured_here(store, key):
            continue
        files = {}
        for kind, table in series.items():
            mine = table[table["key"] == key].drop(columns="key")
            if len(mine):
                files[f"{kind}.csv.gz"] = table_gz(mine)
        restored_point = kind_of(point["record"]).restored(point)
        store.write(key, {**restored_point, "recorded": {"study": recorded.name}}, files)
    return restored


def measured_here(store: PointStore, key: str) -> bool:
    """Whether the store has a measurement of its own, not one from recorded data."""
    if store.status(key) in ("missing", "garbled"):
        return False
    return "recorded" not in (store.read(key) or {})
