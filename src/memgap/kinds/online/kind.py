"""Sweeps: servers under a load, over batch caps, rates, flags."""

from collections.abc import Iterator, Mapping
from typing import Any

from memgap.errors import UserError
from memgap.kinds.kind import Expanded, Kind
from memgap.kinds.online.point import make_point, session_name
from memgap.kinds.static.point import is_static
from memgap.points.point import Record
from memgap.points.resolve import Resolver, check_enough_prompts

REQUIRED = ("model", "dataset", "batch_cap")


class Online(Kind):
    """One server, or replicas of one, and the load generator."""

    section = "sweeps"
    noun = "sweep"
    is_table_of_points = True

    def owns(self, record: Mapping[str, Any]) -> bool:
        """See Kind."""
        return "kind" not in record and not is_static(record)

    def expand(self, resolver: Resolver) -> Iterator[Expanded]:
        """See Kind. Engines that run static batches get points of theirs."""
        for name, experiment, found in resolver.groups(self.section, REQUIRED):
            for repeat in range(found.repeats):
                point = make_point(found.arguments, found.engine, found.model, found.dataset, repeat, found.where)
                check_enough_prompts(point.record, found.where)
                _check_stop(point.record, resolver.config[self.section][name]["stop"], found.where)
                yield name, experiment, point

    def session_name(self, record: Mapping[str, Any]) -> str:
        """See Kind."""
        return session_name(record)

    def shown(self, group: str) -> Mapping[str, list[str]]:
        """See Kind."""
        return {"numbers": [f"results/tables/{group}.csv"]}


def _check_stop(record: Record, stop: Mapping[str, Any], where: str) -> None:
    across_caps = [name for name in ("after_preemption", "search") if stop.get(name) not in (None, False, "none")]
    if across_caps and record["cap_side"] == "server":
        raise UserError(
            f"{where}: stop.{across_caps[0]} compares the caps of one server, so it needs `cap_side: client`."
        )


ONLINE = Online()
