"""Tunings: races of server configurations. Their points are a sweep's; which ones, a race finds while it runs."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from memgap.kinds.kind import Expanded, Kind
from memgap.points.point import Point, Record
from memgap.points.resolve import Resolver
from memgap.tuning.plan import tuning_plans
from memgap.tuning.points import known_points


class Tuning(Kind):
    """A race in blocks; every measurement is a point of the store like any other, with the block as its repeat."""

    section = "tuning"
    noun = "tuning"

    def owns(self, record: Mapping[str, Any]) -> bool:
        """See Kind: a race's points are those of a sweep."""
        return False

    def expand(self, resolver: Resolver) -> Iterator[Expanded]:
        """See Kind: none is known from the configuration alone."""
        yield from ()

    def plans(self, resolver: Resolver) -> dict[str, Record]:
        """See Kind."""
        return tuning_plans(resolver)

    def known_points(self, plan: Mapping[str, Any], results: Path) -> Iterator[tuple[str, Point]]:
        """See Kind."""
        return known_points(plan, results)

    def shown(self, group: str) -> Mapping[str, list[str]]:
        """See Kind."""
        return {"tuning": [f"results/tuning/{group}/optimization_summary.csv"]}


TUNING = Tuning()
