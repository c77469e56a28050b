"""Writes the measured points of a results folder as recorded data, thinned. Numbers are taken over as they are."""

import json
import math
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from memgap.errors import DAMAGE, UserError
from memgap.kinds.registry import kind_of, session_of
from memgap.recorded.files import ASKED, THINNED, points_file, read_points, read_series, series_file, write_series
from memgap.redact import redacted_command, redacted_point
from memgap.store.points import PointStore
from memgap.store.results import Results
from memgap.tables.gaps import gaps_of
from memgap.tables.groups import groups_of, names_of

TELEMETRY_ROWS = 60
STEPS_KEPT = 8
"""Of an offline point each eighth decode step is recorded, as it was."""
KERNELS_S = 0.05


def export(results: Path, folder: Path, requests: bool = False) -> int:
    """Add all points of a results folder to a recorded study, in place of those of the same key; returns how many.

    Points that came from recorded data themselves are left out. `requests`: also what `ASKED` names, for figures that
    need single requests and the start. Raises UserError for a damaged point.
    """
    folder.mkdir(parents=True, exist_ok=True)
    store = Results(results).store
    by_session: dict[str, list[dict[str, Any]]] = {}
    for key in store.stored_keys():
        point = store.read(key)
        if point is not None and "recorded" not in point:
            by_session.setdefault(session_of(point["record"]), []).append(point)
    for session, points in by_session.items():
        new = {point["key"] for point in points}
        path = points_file(folder, session)
        kept = [point for point in read_points(path) if point["key"] not in new]
        lines = [json.dumps(one, sort_keys=True) for one in sorted([*kept, *map(_whole, points)], key=_place)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        for kind in THINNED if requests else [one for one in THINNED if one not in ASKED]:
            _export_series(results, folder, session, kind, sorted(new))
    return sum(map(len, by_session.values()))


def _export_series(results: Path, folder: Path, session: str, kind: str, keys: list[str]) -> None:
    target = series_file(folder, session, kind)
    tables = []
    for key in keys:
        if kind in COMPUTED:
            found = COMPUTED[kind](Results(results).store, key)
            tables += [found.assign(key=key)] if len(found) else []
            continue
        source = Results(results).points / key / f"{kind}.csv.gz"
        if source.exists():
            try:
                tables.append(_thin(pd.read_csv(source), kind).assign(key=key))
            except DAMAGE as error:
                raise UserError(f"{source} is damaged ({error}); measure the point again.") from error
    if not tables:
        return
    old = read_series(target)
    write_series(target, pd.concat([old[~old["key"].isin(keys)], *tables], ignore_index=True))


def _groups(store: PointStore, key: str) -> pd.DataFrame:
    return groups_of(store.folder / key, (store.read(key) or {})["record"])


def _gaps(store: PointStore, key: str) -> pd.DataFrame:
    mixed = names_of((store.read(key) or {})["record"])
    return gaps_of(store.folder / key) if mixed else pd.DataFrame()


COMPUTED = {"groups": _groups, "gaps": _gaps}
"""Series that follow from what a point keeps and recorded data do not."""


def _thin(table: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Return what is recorded of a point's series of a kind of `THINNED`."""
    if kind in ("telemetry", "startup"):
        return thin_telemetry(table)
    if kind == "kernels":
        return table[table["start_s"] < KERNELS_S]
    if kind == "steps" and "phase" in table:
        return table[(table["phase"] != "decode") | (table["step"] % STEPS_KEPT == 0)]
    if kind == "gpu":
        return _thin_counters(table)
    return table


def _thin_counters(table: pd.DataFrame) -> pd.DataFrame:
    """Return device counters averaged over equal parts of each phase, `TELEMETRY_ROWS` at most."""
    span = table.groupby("phase")["time_ms"].transform("max").clip(lower=1e-9)
    place = (table["time_ms"] / span * TELEMETRY_ROWS).clip(upper=TELEMETRY_ROWS - 1).astype(int)
    keys = ["phase", "metric", "profiler", "place"]
    means = table.assign(place=place).groupby(keys, sort=False).mean(numeric_only=True)
    return means.reset_index().drop(columns="place")


def thin_telemetry(table: pd.DataFrame) -> pd.DataFrame:
    """Return the samples averaged over equal parts of their time, `TELEMETRY_ROWS` at most."""
    if len(table) <= TELEMETRY_ROWS:
        return table
    first, last = table["time_s"].min(), table["time_s"].max()
    place = np.minimum((table["time_s"] - first) / (last - first) * TELEMETRY_ROWS, TELEMETRY_ROWS - 1).astype(int)
    return table.groupby(place).mean().reset_index(drop=True)


def _place(point: Mapping[str, Any]) -> tuple[int, int, str]:
    record = point["record"]
    return kind_of(record).listed(record).batch_cap, record["repeat"], point["key"]


def _whole(point: dict[str, Any]) -> dict[str, Any]:
    try:
        return _tidy(point)
    except DAMAGE as error:
        said = f"{type(error).__name__}: {error}"
        raise UserError(f"the point {point['key']} is not whole ({said}); measure it again.") from error


def _tidy(point: dict[str, Any]) -> dict[str, Any]:
    """Return a point with the paths of its machine cut down to what they mean, in the server's command lines, and
    without secrets, should an older store have one.
    """
    commands = [redacted_command(_short(one)) for one in point["provenance"]["commands"]]
    point = redacted_point(point)
    provenance = {**point["provenance"], "commands": commands}
    finite = {name: value for name, value in point["summary"].items() if math.isfinite(value)}
    return {**point, "provenance": provenance, "summary": finite}


def _short(command: list[str]) -> list[str]:
    program, *rest = command
    return [PurePosixPath(program).name, *map(_without_folder, rest)]


def _without_folder(argument: str) -> str:
    """Return a path from `results/` on, another absolute one as its last part, anything else as it is."""
    if "/results/" in argument:
        return argument[argument.index("/results/") + 1 :]
    return PurePosixPath(argument).name if argument.startswith("/") else argument
