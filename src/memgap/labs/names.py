"""The names that labs, their tables and their figures share: metrics, arms, columns, verdicts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from memgap.canonical import canonical_json

SAME = "same"
"""The arm that is the reference once more."""
AXIS = "axis:"
"""Begins the columns of axis values."""
HOLDS, FAILS, UNDECIDED, UNTESTED = "holds", "does not hold", "undecided", "not tested"
VERDICTS = (HOLDS, FAILS, UNDECIDED, UNTESTED)
CLAIM_COLUMNS = (
    *("lab", "id", "sentence", "effect", "low", "high", "blocks", "verdict", "reason", "source"),
    *("about", "claimed", "device", "date_utc"),
)


@dataclass(frozen=True)
class Metric:
    """`column[.group][@phase]`, such as `itl_p99_ms.short` or `ttft_mean_ms@cold`."""

    column: str
    group: str = ""
    phase: str = ""

    @property
    def name(self) -> str:
        """The column of a lab's table, without the phase, which is a row's."""
        return f"{self.column}.{self.group}" if self.group else self.column

    @property
    def text(self) -> str:
        """As it is written."""
        return self.name + (f"@{self.phase}" if self.phase else "")


def metric_of(text: str) -> Metric:
    """Return the metric of a text."""
    name, _, phase = text.partition("@")
    column, _, group = name.partition(".")
    return Metric(column, group, phase)


def leading(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return the axes of a plan with their values, of those that go in step the first one alone."""
    followers = {path for group in plan.get("zip", []) for path in group[1:]}
    return {path: values for path, values in plan["axes"].items() if path not in followers}


def value_text(value: Any) -> str:
    """Return an axis value as tables have it."""
    return value if isinstance(value, str) else canonical_json(value)
