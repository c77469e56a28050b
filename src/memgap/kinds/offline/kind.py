"""Offline studies: a batch of fixed size in an engine in process, under a profiler where one is asked for."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from memgap.engine.adapters import require
from memgap.kinds.kind import Expanded, Kind, Listed
from memgap.kinds.offline.point import KIND, REQUIRED, make_offline_point, offline_session_name
from memgap.points.resolve import Resolver

if TYPE_CHECKING:
    from memgap.session.measuring import Measuring


class Offline(Kind):
    """One worker process with one engine."""

    name = KIND
    section = "offline"
    noun = "offline study"
    serves = False

    def expand(self, resolver: Resolver) -> Iterator[Expanded]:
        """See Kind."""
        for name, experiment, found in resolver.groups(self.section, REQUIRED):
            require(found.engine, "in_process", "an offline study", found.where)
            for repeat in range(found.repeats):
                yield name, experiment, make_offline_point(found, repeat)

    def session_name(self, record: Mapping[str, Any]) -> str:
        """See Kind."""
        return offline_session_name(record)

    def measuring(self) -> "Measuring[Any]":
        """See Kind."""
        from memgap.kinds.offline.measure import MEASURING

        return MEASURING

    def restored(self, point: Mapping[str, Any]) -> Mapping[str, Any]:
        """See Kind. Points recorded before offline points were judged say "valid" whatever was seen."""
        from memgap.verdict.batches import judged_again

        return judged_again(point)

    def label(self, record: Mapping[str, Any]) -> str:
        """See Kind."""
        return f"{record['model']['name']}, batch {record['batch']}"

    def listed(self, record: Mapping[str, Any]) -> Listed:
        """See Kind."""
        return Listed(record["batch"], self.name, record["batch"])

    def steps(self, record: Mapping[str, Any]) -> float:
        """See Kind."""
        output = record["output_tokens"] if "output_tokens" in record else self.output_tokens(record)
        return float(1 + record["warmup_steps"] + output)

    def at_once(self, record: Mapping[str, Any]) -> int:
        """See Kind."""
        return int(record["batch"])

    def measured_s(self, point: Mapping[str, Any]) -> float | None:
        """See Kind."""
        found: float | None = point.get("summary", {}).get("total_s")
        return found

    def shares_prefixes(self, record: Mapping[str, Any]) -> bool:
        """See Kind."""
        return False


OFFLINE = Offline()
