"""What a kind of measurement is. The defaults are those of a sweep of servers; a kind overrides what differs.

A kind says all of itself: how its section of the configuration becomes points, which session measures a point, what
host and phases do it, and how it is listed and told. A new one is a folder below `kinds/` with `kind.py` (a subclass
and its one instance), `arguments.yaml` (its section of the configuration's schema), and a line in
`memgap.kinds.registry.KINDS`; see docs/architecture.md. These modules are read wherever a point is, also in an engine's
environment: what needs pandas or an engine is imported by the function that needs it.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memgap.datasets.spec import SHARED_PREFIX_KINDS, WARMUP_OUTPUT_TOKENS
from memgap.points.point import Point, Record
from memgap.points.resolve import Resolver
from memgap.session.time_left import Work
from memgap.stats.averaging import restored

if TYPE_CHECKING:
    from memgap.session.measuring import Measuring

LONG_OUTPUT = 2
"""The longest of several replies in flight, which are waited for, is taken as so many mean ones."""
Expanded = tuple[str, str, Point]
"""Name of the group in the configuration's section, experiment, point."""


@dataclass(frozen=True)
class Listed:
    """What `memgap list` says of a point: requests at once, who holds that bound (or the kind), requests in all.

    `load_s` is the duration of a load in seconds, of which `requests` are the most.
    """

    batch_cap: int
    side: str
    requests: int
    load_s: float | None = None


class Kind:
    """One kind of measurement."""

    name: str = ""
    """`kind` in a point's record. The kinds that came first have none there, since their keys stay."""
    section: str = ""
    """Section of the configuration whose groups this kind expands; empty for one that shares another's."""
    noun: str = ""
    """What a group is called in a sentence, such as "sweep"."""
    serves: bool = True
    """Whether points are measured on servers, whose commands can be run by hand."""
    elsewhere: bool = False
    """Whether points are measured on servers that are there already, so that a job needs no GPU."""
    is_table_of_points: bool = False
    """Whether `results/tables/GROUP.parquet` has the points."""

    def owns(self, record: Mapping[str, Any]) -> bool:
        """Whether a point's record is of this kind."""
        return bool(self.name) and record.get("kind") == self.name

    def expand(self, resolver: Resolver) -> Iterator[Expanded]:
        """Yield the points of the section in the order in which they are measured; raises UserError."""
        raise NotImplementedError(self.name)

    def plans(self, resolver: Resolver) -> dict[str, Record]:
        """Return by group the plan of what finds its points only while it runs; raises UserError."""
        return {}

    def known_points(self, plan: Mapping[str, Any], results: Path) -> Iterator[tuple[str, Point]]:
        """Yield (experiment, point) of a plan as far as they are known now."""
        yield from ()

    def session_name(self, record: Mapping[str, Any]) -> str:
        """Return the name of the session that measures a point: readable, and unique for its server."""
        raise NotImplementedError(self.name)

    def label(self, record: Mapping[str, Any]) -> str:
        """Return what the progress calls a point."""
        repeat = f", repeat {record['repeat'] + 1}" if record["repeat"] else ""
        replicas = f", {record['server']['replicas']} replicas" if record["server"]["replicas"] > 1 else ""
        cap = f"cap {record['batch_cap']}{replicas}"
        return f"{record['model']['name']}, {cap}, {self.size(record)}{self.variant(record)}{repeat}"

    def size(self, record: Mapping[str, Any]) -> str:
        """Return what a label says of how long the load is."""
        load = record["load"]
        return f"{load['seconds']:g} s" if "seconds" in load else f"{load['requests']} requests"

    def variant(self, record: Mapping[str, Any]) -> str:
        """Return what a label says of a point beside model, cap and requests, with ", " before it."""
        return ""

    def listed(self, record: Mapping[str, Any]) -> Listed:
        """Return what the listing says of a point."""
        load = record["load"]
        return Listed(record["batch_cap"], record["cap_side"], load["requests"], load.get("seconds"))

    def output_tokens(self, record: Mapping[str, Any]) -> float:
        """Return the mean output tokens of a request, as far as they are known before."""
        dataset = record["dataset"]
        limits = dataset.get("output_tokens")
        if isinstance(limits, Mapping):  # drawn evenly between them, or from them
            drawn = limits.get("choices") or (limits["min"], limits["max"])
            return float(sum(drawn)) / len(drawn)
        return float(dataset.get("mean_output_tokens", 300.0))

    def steps(self, record: Mapping[str, Any]) -> float:
        """Return how many decode steps a point's load takes at least."""
        requests = record["load"].get("min_requests", record["load"]["requests"])
        return float(requests * self.output_tokens(record) / min(record["batch_cap"], requests))

    def work(self, record: Mapping[str, Any]) -> Work:
        """Return what the duration of a point depends on, for estimates of its time."""
        load, steps, at_once = record.get("load", {}), self.steps(record), self.at_once(record)
        if "seconds" not in load:
            return Work(steps, at_once)
        output = self.output_tokens(record)
        warm_up = math.ceil(load["warmup_requests"] / at_once) * min(output, WARMUP_OUTPUT_TOKENS)
        return Work(steps, at_once, load["seconds"], warm_up + (LONG_OUTPUT if at_once > 1 else 1) * output)

    def at_once(self, record: Mapping[str, Any]) -> int:
        """Return how many requests are in flight at most."""
        return int(record["batch_cap"]) * int(record["server"]["replicas"])

    def measured_s(self, point: Mapping[str, Any]) -> float | None:
        """Return how long a stored point's window was in seconds, None where it has none."""
        found: float | None = point.get("window", {}).get("duration_s")
        return found

    def measuring(self) -> "Measuring[Any]":
        """Return how a point is measured: the host, the phases, the judge."""
        raise NotImplementedError(self.name)

    def restored(self, point: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a recorded point as it is to be stored: with its steady part by today's rule."""
        return {**point, "summary": restored(point["summary"], point["record"].get("load", {}))}

    def shares_prefixes(self, record: Mapping[str, Any]) -> bool:
        """Whether hits of the prefix cache belong to the workload."""
        dataset, several = record["dataset"], record["load"].get("samples", 1) > 1
        return several or (dataset["kind"] in SHARED_PREFIX_KINDS and dataset.get("prefix_tokens") != 0)

    def shown(self, group: str) -> Mapping[str, list[str]]:
        """Return which files of a group to look at first, by what they are: "figures", "numbers"."""
        return {}
