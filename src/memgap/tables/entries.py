"""What became of each point of a plan, for the tables of every kind: measured, failed, spared, missing, garbled."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from memgap.errors import DAMAGE, UserError, one_line
from memgap.store.points import SPARED, PointStore

GARBLED, MISSING = "garbled", "missing"


@dataclass(frozen=True)
class Entry:
    """One point of a plan: what was declared, what is stored, and what there is to say where nothing is.

    `status` is the stored point's own, or "missing", "garbled" (it is stored and cannot be read), "not_needed" (a stop
    rule spared it). `message` says why for these three. `folder` is the point's in the store.
    """

    experiment: str
    key: str
    session: str
    record: Mapping[str, Any]
    point: Mapping[str, Any] | None
    status: str
    message: str | None
    folder: Path

    @property
    def names(self) -> dict[str, str]:
        """The columns that name the point in any table."""
        return {"experiment": self.experiment, "key": self.key, "session": self.session}

    @property
    def declared(self) -> dict[str, Any]:
        """Columns of what any kind of record declares."""
        record = self.record
        return {
            **self.names,
            "model": record["model"]["name"],
            "engine": record["engine"]["package"],
            "engine_version": record["engine"]["version"],
            "dtype": record["model"]["dtype"],
            "repeat": record["repeat"],
        }

    @property
    def outcome(self) -> dict[str, Any]:
        """Columns of what became of the point, whatever its kind; raises one of `DAMAGE` for a garbled point."""
        if self.point is None:
            kind = GARBLED if self.status == GARBLED else None
            return {"status": self.status, "error_kind": kind, "error_message": self.message}
        error, verdict = self.point["error"] or {}, self.point.get("verdict", {})
        return {
            "status": self.status,
            "flags": ";".join(self.point["flags"]),
            "verdict": verdict.get("verdict"),
            "error_kind": error.get("kind"),
            "error_message": error.get("message"),
            "date_utc": self.point["provenance"]["date_utc"],
            **{name: self.point["hardware"][name] for name in ("device", "gpu_name", "driver")},
            "source": source_of(self.point),
        }

    def garbled(self, error: Exception) -> "Entry":
        """Return the entry of a point whose file is whole and whose content is not."""
        said = one_line(f"{self.folder}: not a whole point ({type(error).__name__}: {error})")
        return replace(self, point=None, status=GARBLED, message=said)

    def series(self, name: str) -> pd.DataFrame:
        """Return one of the point's series; see `series_of`."""
        return series_of(self.folder, name)


def source_of(point: Mapping[str, Any]) -> str:
    """Return whether a point was measured here or comes from recorded data."""
    return "recorded" if "recorded" in point else "measured"


def entries(plan: Mapping[str, Any], points: Path) -> list[Entry]:
    """Return the entries of a plan in its order; raises UserError where it is no plan of points.

    Whether a point was spared stands in its session's outcome, in `sessions` beside the store.
    """
    if not {"sweep", "points"} <= plan.keys():
        raise UserError("not a sweep plan: it needs sweep and points; let Snakemake make it again.")
    store, sessions = PointStore(points), points.parent / "sessions"
    spared = _spared(sessions, {entry["session"] for entry in plan["points"] if "session" in entry})
    return [_entry(entry, store, sessions, spared) for entry in plan["points"]]


def series_of(folder: Path, name: str, missing: tuple[str, ...] | None = None) -> pd.DataFrame:
    """Return a series of a point, such as "requests"; raises UserError where its file is damaged.

    Without the file: a table of the columns `missing` without a row, where they are given.
    """
    path = folder / f"{name}.csv.gz"
    if missing is not None and not path.exists():
        return pd.DataFrame(columns=list(missing))
    try:
        return pd.read_csv(path)
    except DAMAGE as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> UserError:
    """Return what to say of a point's file that cannot be read."""
    return UserError(f"{path} is damaged ({error}); measure the point again.")


def _entry(entry: Mapping[str, Any], store: PointStore, sessions: Path, spared: Mapping[str, str]) -> Entry:
    key, session = entry["key"], entry.get("session", "")
    again = f"with `remeasure: [{key}]` in the configuration the next run measures it again, and no other"
    point, status, message = None, MISSING, None
    try:
        point = store.read(key)
    except UserError:
        status, message = GARBLED, f"this point's file in the store is damaged; {again}"
    if point:
        status = point["status"]
    elif status == MISSING and key in spared:
        status, message = SPARED, spared[key]
    elif status == MISSING and (sessions / f"{session}.json").exists():
        message = f"the point was removed from the store; {again}"
    experiment = entry.get("experiment", "")
    return Entry(experiment, key, session, entry["record"], point, status, message, store.folder / key)


def _spared(folder: Path, sessions: Collection[str]) -> dict[str, str]:
    """Return the keys that the sessions' stop rules spared, with the reason."""
    spared = {}
    for path in (folder / f"{session}.json" for session in sorted(sessions)):
        try:
            points = json.loads(path.read_text(encoding="utf-8"))["points"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        spared.update({one["key"]: one["reason"] for one in points if one["status"] == SPARED})
    return spared
