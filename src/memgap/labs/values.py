"""The rows of a lab: one a cell, block and phase, with the columns that tables of points have of it."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from memgap.kinds.offline.tables import offline_tables
from memgap.labs.names import AXIS, metric_of, value_text
from memgap.labs.points import Cell, all_cells, capacities, place_of
from memgap.profiling.classes import CLASSES
from memgap.store.points import PointStore
from memgap.tables.class_shares import class_ms
from memgap.tables.entries import MISSING, Entry, entries
from memgap.tables.gaps import TOKEN, gaps_of
from memgap.tables.groups import groups_of
from memgap.tables.occupancy import occupancy_table
from memgap.tables.over_time import series_table
from memgap.tables.points import collected

NAMED = ("lab", "arm", "label", "phase", "block")
TIMES = ("time_s", "quantity", "value")
GAUGES, GAP = ("running_reqs", "waiting_reqs"), "itl_ms"
"""Values over time that have tables of their own; the others are means over each second."""
Row = dict[str, Any]
Plan = Mapping[str, Any]


def lab_rows(plan: Plan, points: Path) -> list[Row]:
    """Return the rows of a lab's plan. Beside columns of numbers and texts a row has the axis values `at`, and the
    `record` and `summary` of its point.

    Cells whose rate is not known, since no capacity was measured, are rows too.
    """
    store = PointStore(points)
    cells = [cell for cell in all_cells(plan, store) if cell.arm not in plan["left_out"]]
    return [*_measured(plan, cells, points), *_unknown(plan, store)]


def lab_table(plan: Plan, rows: Sequence[Row]) -> pd.DataFrame:
    """Return rows as a table: names, axis values as texts, and the columns that any of them has a value of."""
    axes = [f"{AXIS}{path}" for path in plan["axes"]]
    shown = [{name: one for name, one in row.items() if name not in ("at", "record", "summary")} for row in rows]
    table = pd.DataFrame(shown)
    first = [*NAMED, *axes]
    for name in first:
        if name not in table:
            table[name] = pd.Series(dtype=object)
    rest = [name for name in table.columns if name not in first and not table[name].isna().all()]
    needed = [name for name in ("status", "verdict", "source") if name not in rest and name in table]
    return table[[*first, *needed, *rest]]


def series_rows(plan: Plan, points: Path) -> pd.DataFrame:
    """Return every second of the first block's points, long: arm, axis values, time, quantity, value."""
    store = PointStore(points)
    axes = [f"{AXIS}{path}" for path in plan["axes"]]
    columns = ["arm", "label", "block", *axes, *TIMES]
    wanted = {y for panel in plan["figure"]["panels"] if panel["kind"] == "series" for y in _listed(panel["y"])}
    served = {arm for arm, kind in plan["kinds"].items() if kind != "offline"} if wanted else {}
    cells = [cell for cell in all_cells(plan, store) if cell.block == 0 and cell.arm in served]
    tables = []
    for cell in cells:
        named = {"arm": cell.arm, "label": plan["arms"][cell.arm], "block": cell.block + 1, **_axes(plan, cell.at)}
        tables += [one.assign(**named) for one in _over_time(plan, cell, points, wanted) if len(one)]
    return pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)


def _over_time(plan: Plan, cell: Cell, points: Path, wanted: set[str]) -> Iterator[pd.DataFrame]:
    """Yield the wanted values of one point over time, with the columns `TIMES`."""
    group = _group(plan, [cell])
    if gauges := wanted & set(GAUGES):
        yield _long(occupancy_table(group, points), "time_s", gauges)
    if others := {one for one in wanted if one not in GAUGES and not one.startswith(GAP)}:
        yield _long(series_table(group, points), "second", others)
    for quantity in (one for one in wanted if one.startswith(GAP)):
        metric, found = metric_of(quantity), gaps_of(points / cell.point.key)
        found = found[found["event"] == TOKEN]
        if metric.group:
            found = found[found["group"] == plan["groups"].index(metric.group)]
        yield found[["time_s", "gap_ms"]].rename(columns={"gap_ms": "value"}).assign(quantity=quantity)


def _long(table: pd.DataFrame, time: str, quantities: Collection[str]) -> pd.DataFrame:
    found = [name for name in table.columns if name in quantities]
    long = table.melt(id_vars=time, value_vars=found, var_name="quantity", value_name="value")
    return long.rename(columns={time: "time_s"})


def _measured(plan: Plan, cells: Sequence[Cell], points: Path) -> Iterator[Row]:
    if offline := [cell for cell in cells if plan["kinds"][cell.arm] == "offline"]:
        group = _group(plan, offline)
        made = offline_tables(group, points)
        shares = class_shares(made["classes"])
        for row in _rows(plan, offline, entries(group, points), made["offline"], ""):
            yield {**row, **shares.get(row["key"], {})}
    cells = [cell for cell in cells if plan["kinds"][cell.arm] != "offline"]
    found = entries(_group(plan, cells), points)
    for phase in plan["phases"] or [""]:
        own = [_of_phase(entry, phase) for entry in found]
        yield from _rows(plan, cells, own, collected(plan["lab"], own, plan["averaging"]), phase)


def class_shares(classes: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Return by point the share of the time with a kernel that each class has, such as `decode_gpu_share.matmul`."""
    found: dict[str, dict[str, float]] = {}
    for (key, phase), own in classes.groupby(["key", "phase"], sort=False):
        parts = class_ms(own)
        whole = sum(parts.values())
        own_shares = {f"{phase}_gpu_share.{one}": parts.get(one, 0.0) / whole for one in CLASSES} if whole else {}
        found.setdefault(str(key), {}).update(own_shares)
    return found


def _rows(plan: Plan, cells: Sequence[Cell], found: Sequence[Entry], table: pd.DataFrame, phase: str) -> Iterator[Row]:
    plain = table.astype(object).where(table.notna(), None)
    for cell, entry, row in zip(cells, found, plain.to_dict("records"), strict=True):
        if plan["recorded"] is not None and row["status"] == MISSING:
            row["error_message"] = "it is not among the recorded points"
        yield {
            **{str(name): value for name, value in row.items()},
            **_names(plan, cell.arm, cell.at, cell.block),
            "phase": phase,
            **_groups(plan, entry),
            "record": entry.record,
            "summary": entry.point["summary"] if entry.point else {},
        }


def _groups(plan: Plan, entry: Entry) -> dict[str, Any]:
    """Return the columns of each group of requests, such as `itl_p99_ms.short`."""
    if not plan["groups"] or entry.point is None or not entry.record.get("dataset"):
        return {}
    found = groups_of(entry.folder, entry.record)
    rows = found.astype(object).where(found.notna(), None).to_dict("records")
    return {f"{name}.{row['group']}": value for row in rows for name, value in row.items() if name != "group"}


def _unknown(plan: Plan, store: PointStore) -> Iterator[Row]:
    _, reasons = capacities(plan, store)
    for block in range(plan["blocks"]):
        for cell in plan["cells"]:
            reason = reasons.get(place_of(cell["at"])) if "share" in cell else None
            if reason is not None and cell["arm"] not in plan["left_out"]:
                for phase in plan["phases"] or [""]:
                    named = _names(plan, cell["arm"], cell["at"], block)
                    more = {"status": "missing", "verdict": None, "error_message": reason}
                    yield {**named, **more, "phase": phase, "record": cell["record"], "summary": {}}


def _names(plan: Plan, arm: str, at: Mapping[str, Any], block: int) -> Row:
    named = {"lab": plan["lab"], "arm": arm, "label": plan["arms"][arm], "block": block + 1}
    return {**named, "at": at, **_axes(plan, at)}


def _axes(plan: Plan, at: Mapping[str, Any]) -> dict[str, str]:
    return {f"{AXIS}{path}": value_text(at[path]) for path in plan["axes"]}


def _of_phase(entry: Entry, phase: str) -> Entry:
    """Return an entry whose point has the numbers of one phase under the names of a whole one."""
    if not phase or entry.point is None:
        return entry
    begin = f"{phase}_"
    own = {name.removeprefix(begin): one for name, one in entry.point["summary"].items() if name.startswith(begin)}
    window = entry.point.get("windows", {}).get(phase, {})
    return replace(entry, point={**entry.point, "summary": own, "client": window.get("client", {})})


def _group(plan: Plan, cells: Sequence[Cell]) -> dict[str, Any]:
    """Return the plan of points that tables of groups take."""
    return {
        "sweep": plan["lab"],
        "averaging": plan["averaging"],
        "points": [
            {"key": c.point.key, "session": c.point.session, "experiment": c.arm, "record": c.point.record}
            for c in cells
        ],
    }


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)
