"""Restarts: a load, then the server is stopped and started again, then the same prompts twice more.

Tells what a start costs by phase, and what the first requests after it pay: nothing is warm, neither kernels nor the
prefix cache.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from memgap.errors import UserError
from memgap.kinds.kind import Expanded, Kind
from memgap.kinds.online.point import make_point
from memgap.points.point import Point, server_key
from memgap.points.resolve import Resolved, Resolver, check_enough_prompts
from memgap.session.time_left import Work

if TYPE_CHECKING:
    from memgap.session.measuring import Measuring

WINDOWS = ("before", "cold", "warm")
"""The three loads of a point: on a warmed-up server, right after its restart, and the same prompts once more."""


class Restarts(Kind):
    """One server that is started twice a point."""

    name = "restart"
    section = "restarts"
    noun = "restart"

    def expand(self, resolver: Resolver) -> Iterator[Expanded]:
        """See Kind."""
        for name, experiment, found in resolver.groups(self.section, ("model", "dataset", "batch_cap")):
            for repeat in range(found.repeats):
                yield name, experiment, self._point(found, repeat)

    def _point(self, found: Resolved, repeat: int) -> Point:
        base = make_point(found.arguments, found.engine, found.model, found.dataset, repeat, found.where).record
        if "seconds" in base["load"]:
            raise UserError(
                f"{found.where}: the same prompts are sent three times, so give load.requests, not seconds."
            )
        check_enough_prompts(base, found.where)
        record = {**base, "kind": self.name}
        return Point.of(record, self.session_name(record))

    def session_name(self, record: Mapping[str, Any]) -> str:
        """See Kind."""
        return f"{record['model']['name']}-{record['engine']['name']}-restart-{server_key(record)}"

    def steps(self, record: Mapping[str, Any]) -> float:
        """See Kind: the load is sent three times."""
        return len(WINDOWS) * super().steps(record)

    def work(self, record: Mapping[str, Any]) -> Work:
        """See Kind: of a load in seconds, all three last so long."""
        once = super().work(record)
        return replace(once, seconds=len(WINDOWS) * once.seconds, beside_steps=len(WINDOWS) * once.beside_steps)

    def shares_prefixes(self, record: Mapping[str, Any]) -> bool:
        """See Kind: the last window sends the prompts of the one before."""
        return True

    def measured_s(self, point: Mapping[str, Any]) -> float | None:
        """See Kind."""
        lasted = [one["window"]["duration_s"] for one in point.get("windows", {}).values()]
        return sum(lasted) + sum(one["start_s"] for one in point.get("starts", [])) if lasted else None

    def measuring(self) -> "Measuring[Any]":
        """See Kind."""
        from memgap.kinds.online.measure import MEASURING
        from memgap.session.measuring import Phase, PointRun
        from memgap.session.phases import ResetCaches, Restart, Window

        class NoteStart(Phase[Any]):
            """Keep how long the last start took, by phase."""

            def run(self, run: PointRun[Any]) -> None:
                phases = [{"phase": phase, "duration_s": lasted} for phase, lasted in run.host.startup_s.items()]
                started = {"start_s": run.host.start_s, "phases": phases}
                run.added.setdefault("starts", []).append(started)

        before, cold, warm = WINDOWS
        phases = (
            *(NoteStart(), ResetCaches(), Window(before), Restart(), NoteStart()),
            *(Window(cold, warm_up=False), Window(warm, warm_up=False)),
        )
        return replace(MEASURING, phases=phases, label=self.label, work=self.work, result=_result)

    def shown(self, group: str) -> Mapping[str, list[str]]:
        """See Kind."""
        return {
            "figures": [f"figures/{group}.restart.pdf"],
            "numbers": [f"results/tables/{group}.restart.csv", f"results/tables/{group}.startup.csv"],
        }


def _result(point: Mapping[str, Any]) -> str:
    """Return in words what a restart cost."""
    ttft = ", ".join(f"{name} {point['summary'].get(f'{name}_ttft_mean_ms', float('nan')):.0f}" for name in WINDOWS)
    return f"started again in {point['starts'][-1]['start_s']:.0f} s; mean TTFT in ms: {ttft}"


RESTART = Restarts()
