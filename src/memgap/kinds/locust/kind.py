"""Load tests: users of Locust who repeat prompts, and the load generator with the same requests beside them."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from memgap.kinds.kind import Expanded, Kind, Listed
from memgap.kinds.locust.point import KIND, REQUIRED, loadtest_points, loadtest_session_name, told
from memgap.points.resolve import Resolver

if TYPE_CHECKING:
    from memgap.session.measuring import Measuring


class LoadTest(Kind):
    """Either client against the same server, one after the other."""

    name = KIND
    section = "loadtests"
    noun = "load test"

    def expand(self, resolver: Resolver) -> Iterator[Expanded]:
        """See Kind. The experiment is the scenario in words."""
        for name, experiment, found in resolver.groups(self.section, REQUIRED):
            points = list(loadtest_points(found))
            for point in points:
                yield name, told(experiment, [one.record for one in points]), point

    def session_name(self, record: Mapping[str, Any]) -> str:
        """See Kind."""
        return loadtest_session_name(record)

    def measuring(self) -> "Measuring[Any]":
        """See Kind."""
        from memgap.kinds.locust.measure import MEASURING

        return MEASURING

    def variant(self, record: Mapping[str, Any]) -> str:
        """See Kind."""
        return f", {record['loadtest']['client']}"

    def listed(self, record: Mapping[str, Any]) -> Listed:
        """See Kind."""
        return Listed(record["batch_cap"], record["loadtest"]["client"], record["load"]["requests"])

    def output_tokens(self, record: Mapping[str, Any]) -> float:
        """See Kind."""
        return float(record["loadtest"]["output_tokens"])

    def shares_prefixes(self, record: Mapping[str, Any]) -> bool:
        """See Kind."""
        return True

    def shown(self, group: str) -> Mapping[str, list[str]]:
        """See Kind."""
        return {
            "figures": [f"figures/{group}.loadtest.pdf"],
            "numbers": [f"results/tables/{group}.comparison.csv"],
        }


LOADTEST = LoadTest()
