"""The points of a lab: a block is a repeat, and rates that are shares follow from the measured capacity."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memgap.canonical import canonical_json
from memgap.kinds.kind import Kind
from memgap.kinds.offline.kind import OFFLINE
from memgap.kinds.online.kind import ONLINE
from memgap.kinds.phased import PHASED
from memgap.kinds.static.kind import STATIC
from memgap.labs.names import SAME
from memgap.labs.plan import OF_CAPACITY
from memgap.points.point import Point, Record
from memgap.stats.averaging import value
from memgap.store.points import PointStore
from memgap.store.results import Results
from memgap.tuning.failures import failure_class, failure_text

KINDS: tuple[Kind, ...] = (PHASED, OFFLINE, STATIC, ONLINE)
"""Kinds of a lab's points."""
AA_REPEATS = 500
"""The reference measured once more counts its blocks from here, so that its points are others."""
RATE_DIGITS = 3
"""Significant digits of a rate that follows from a capacity."""
REQUESTS = "request_throughput_req_s"
Plan = Mapping[str, Any]


@dataclass(frozen=True)
class Cell:
    """One point of a lab: an arm at axis values in a block, or a capacity, whose arm is the reference."""

    arm: str
    at: Mapping[str, Any]
    block: int
    point: Point

    @property
    def label(self) -> str:
        """What the progress calls it."""
        return ", ".join([self.arm, *(f"{path.rpartition('.')[2]} {value}" for path, value in self.at.items())])


def capacity_cells(plan: Plan) -> list[Cell]:
    """Return the points that have to be measured before the rates of the others are known."""
    return [Cell(plan["reference"], one["at"], 0, point_of(one["record"])) for one in plan["capacities"]]


def capacities(plan: Plan, store: PointStore) -> tuple[dict[str, float], dict[str, str]]:
    """Return the capacity in req/s by the axis values that it is of (see `place_of`), and why others have none."""
    rates, reasons = dict[str, float](), dict[str, str]()
    for cell in capacity_cells(plan):
        place, key = place_of(cell.at), cell.point.key
        stored = None if store.status(key) in ("missing", "garbled") else store.read(key)
        if stored is None:
            reasons[place] = "the capacity was not measured"
        elif failure_class(stored) is not None:
            reasons[place] = f"the capacity was not measured ({failure_text(stored)})"
        else:
            rate = value(stored["summary"], REQUESTS, plan["averaging"])
            rates |= {place: rate} if rate else {}
            reasons |= {} if rate else {place: "the capacity was not measured (no request was completed)"}
    return rates, reasons


def place_of(at: Mapping[str, Any]) -> str:
    """Return the axis values that a capacity is of, as a text."""
    return canonical_json({path: one for path, one in at.items() if path != OF_CAPACITY})


def cells_of(plan: Plan, block: int, rates: Mapping[str, float]) -> Iterator[Cell]:
    """Yield the points of a block, but for those whose rate is not known, by the capacities in req/s."""
    for cell in plan["cells"]:
        record = cell["record"]
        if "share" in cell:
            rate = rates.get(place_of(cell["at"]))
            if rate is None:
                continue
            record = {**record, "load": {**record["load"], "rate_req_s": rounded(cell["share"] * rate)}}
        repeat = block + (AA_REPEATS if cell["arm"] == SAME else 0)
        yield Cell(cell["arm"], cell["at"], block, point_of(record, repeat))


def rounded(rate: float) -> float:
    """Return a rate to so many significant digits."""
    return float(f"{rate:.{RATE_DIGITS}g}")


def point_of(record: Record, repeat: int = 0) -> Point:
    """Return the point of a record's so many-th repeat."""
    whole: Record = json.loads(canonical_json({**record, "repeat": repeat}))
    kind = next(one for one in KINDS if one.owns(whole))
    return Point.of(whole, kind.session_name(whole))


def all_cells(plan: Plan, store: PointStore) -> Iterator[Cell]:
    """Yield all points of the blocks as far as their rates are known."""
    rates, _ = capacities(plan, store)
    for block in range(plan["blocks"]):
        yield from cells_of(plan, block, rates)


def known_points(plan: Plan, results: Path) -> Iterator[tuple[str, Point]]:
    """Yield (arm, point): the capacities, and the blocks' points as far as their rates are known."""
    seen = set()
    for cell in [*capacity_cells(plan), *all_cells(plan, Results(results).store)]:
        if cell.point.key not in seen and cell.arm not in plan["left_out"]:
            seen.add(cell.point.key)
            yield cell.arm, cell.point
