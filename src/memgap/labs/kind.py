"""Labs as a section of the configuration; their points are those of other kinds."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from memgap.kinds.kind import Expanded, Kind
from memgap.labs.plan import lab_plans
from memgap.labs.points import known_points
from memgap.points.point import Point, Record
from memgap.points.resolve import Resolver


class Labs(Kind):
    """Arms in blocks; every measurement is a point of the store like any other, with the block as its repeat."""

    section = "labs"
    noun = "lab"

    def owns(self, record: Mapping[str, Any]) -> bool:
        """See Kind: a lab's points are those of a sweep, an offline study, or phases."""
        return False

    def expand(self, resolver: Resolver) -> Iterator[Expanded]:
        """See Kind: a lab runs its own points, some of which are known only then."""
        yield from ()

    def plans(self, resolver: Resolver) -> dict[str, Record]:
        """See Kind."""
        return lab_plans(resolver)

    def known_points(self, plan: Mapping[str, Any], results: Path) -> Iterator[tuple[str, Point]]:
        """See Kind."""
        return known_points(plan, results)

    def shown(self, group: str) -> Mapping[str, list[str]]:
        """See Kind."""
        return {"figures": [f"figures/labs/{group}.pdf"], "numbers": [f"results/labs/{group}.claims.csv"]}


LABS = Labs()
