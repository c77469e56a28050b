"""What a file of another tool says of one run, in the words of the table of points."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

STATISTICS = ("mean", "median", "std", "p90", "p95", "p99", "p999")


@dataclass(frozen=True)
class Foreign:
    """One run of another tool.

    `values` has columns of the table of points (`memgap.tables.points`) that the tool gives; what it does not give is
    absent. `concurrency`: the requests that it held open; `rate_req_s`: the rate that it offered; None without one.
    `date`: as far as the file tells it in UTC, else the day.
    """

    tool: str
    version: str | None
    model: str
    values: Mapping[str, float]
    concurrency: int | None = None
    rate_req_s: float | None = None
    date: str | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """How tables and figures call its model, so that it is a line of its own wherever models are drawn."""
        return f"{self.model} ({self.tool})"

    @property
    def status(self) -> str:
        """The status of a point: "ok" where requests completed and none failed."""
        if not self.values.get("requests_completed"):
            return "client_timeout"
        return "request_errors" if self.values.get("requests_failed") else "ok"


def numbers(given: Mapping[str, Any]) -> dict[str, float]:
    """Return the entries that are numbers, as floats."""
    found = {name: value for name, value in given.items() if isinstance(value, int | float)}
    return {name: float(value) for name, value in found.items() if not isinstance(value, bool)}


def statistics(
    metric: str, given: Mapping[str, Any], names: Mapping[str, str], factor: float = 1.0
) -> dict[str, float]:
    """Return a latency's statistics as columns in ms; `names`: our statistic -> the tool's name for it."""
    found = numbers({f"{metric}_{ours}_ms": given.get(theirs) for ours, theirs in names.items()})
    return {name: factor * value for name, value in found.items()}
