"""Phases: one load sent several times on one server, with resets and restarts between, as one measurement.

What a phase finds depends on all before it, so the point's record, and with it the key, has the whole list, and a
session that was killed repeats all of it. Labs ask for such points; they have no section of their own.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memgap.errors import UserError
from memgap.kinds.kind import Expanded, Kind
from memgap.points.point import Record, server_key
from memgap.points.resolve import Resolver
from memgap.session.time_left import Work

if TYPE_CHECKING:
    from memgap.session.measuring import Measuring, Phase

NAME = "phases"
DROP_CACHES = Path("/proc/sys/vm/drop_caches")
CLEAN = "3\n"
"""Pages and inodes."""


def phases_record(base: Mapping[str, Any], steps: Sequence[Mapping[str, Any]], where: str) -> Record:
    """Return the record of phases on the server and with the load of a sweep's record.

    Every `measure` says whether it warms up: as by default the first one after a start. Raises UserError for a step
    that does more than one thing, two phases of one name, and phases that measure nothing.
    """
    found: list[Record] = []
    fresh = True
    for number, step in enumerate(steps, start=1):
        place = f"{where}.phases, step {number}"
        actions = [name for name in ("measure", "reset", "restart", "evict") if name in step]
        if len(actions) != 1 or ("warm_up" in step and actions != ["measure"]):
            raise UserError(f"{place}: give one of measure (perhaps with warm_up), reset, restart and evict.")
        if "measure" in step:
            if any(one.get("measure") == step["measure"] for one in found):
                raise UserError(f"{place}: two phases are called {step['measure']!r}; rename one.")
            found.append({"measure": step["measure"], "warm_up": bool(step.get("warm_up", fresh))})
            fresh = False
        else:
            found.append(dict(step))
            fresh = fresh or "restart" in step
    if not any("measure" in one for one in found):
        raise UserError(f"{where}.phases: no step measures; give at least one `measure: NAME`.")
    if "seconds" in base["load"]:
        raise UserError(f"{where}: every phase sends the same prompts, so give load.requests, not seconds.")
    return {**base, "kind": NAME, "phases": found}


def names_of(record: Mapping[str, Any]) -> list[str]:
    """Return the names of the phases that measure, in order; none of another kind of point."""
    return [one["measure"] for one in record.get("phases", ()) if "measure" in one]


class Phased(Kind):
    """One server under the same load several times."""

    name = NAME
    noun = "lab with phases"

    def expand(self, resolver: Resolver) -> Iterator[Expanded]:
        """See Kind: labs make these points."""
        yield from ()

    def session_name(self, record: Mapping[str, Any]) -> str:
        """See Kind."""
        return f"{record['model']['name']}-{record['engine']['name']}-phases-{server_key(record)}"

    def variant(self, record: Mapping[str, Any]) -> str:
        """See Kind."""
        return f", phases {' '.join(names_of(record))}"

    def steps(self, record: Mapping[str, Any]) -> float:
        """See Kind: the load is sent once a phase."""
        return len(names_of(record)) * super().steps(record)

    def work(self, record: Mapping[str, Any]) -> Work:
        """See Kind."""
        return Work(self.steps(record), self.at_once(record))

    def shares_prefixes(self, record: Mapping[str, Any]) -> bool:
        """See Kind: later phases send the prompts of the ones before."""
        return True

    def measured_s(self, point: Mapping[str, Any]) -> float | None:
        """See Kind."""
        lasted = [one["window"]["duration_s"] for one in point.get("windows", {}).values()]
        return sum(lasted) + sum(one["start_s"] for one in point.get("restarts", [])) if lasted else None

    def measuring(self) -> "Measuring[Any]":
        """See Kind: which phases there are stands in each record."""
        from memgap.kinds.online.measure import MEASURING

        return replace(MEASURING, phases=(), phases_of=_phases, label=self.label, work=self.work, result=_result)


def _phases(record: Mapping[str, Any]) -> "tuple[Phase[Any], ...]":
    from memgap.session.measuring import Phase, PointRun
    from memgap.session.phases import ResetCaches, Restart, Window

    @dataclass(frozen=True)
    class ResetTiers(Phase[Any]):
        """Empty the tiers that are named."""

        tiers: Sequence[str]

        def run(self, run: PointRun[Any]) -> None:
            if not run.host.reset_caches():
                run.fail("bad_config", f"the server did not empty its caches ({', '.join(self.tiers)})", "")
            run.emptied = True

    @dataclass(frozen=True)
    class Evict(Phase[Any]):
        """Drop the system's page cache, which needs the right to."""

        def run(self, run: PointRun[Any]) -> None:
            with suppress(OSError):
                os.sync()
                DROP_CACHES.write_text(CLEAN, encoding="ascii")
                return
            run.fail("bad_config", f"the page cache cannot be dropped here: {DROP_CACHES} cannot be written", "")

    def phase(step: Mapping[str, Any]) -> Phase[Any]:
        if "measure" in step:
            return Window(step["measure"], warm_up=step["warm_up"])
        if "reset" in step:
            return ResetTiers(step["reset"])
        return Restart() if "restart" in step else Evict()

    return (ResetCaches(), *map(phase, record["phases"]))


def _result(point: Mapping[str, Any]) -> str:
    """Return the mean TTFT of each phase."""
    names = names_of(point["record"])
    ttft = ", ".join(f"{name} {point['summary'].get(f'{name}_ttft_mean_ms', float('nan')):.0f}" for name in names)
    return f"mean TTFT in ms: {ttft}"


PHASED = Phased()
