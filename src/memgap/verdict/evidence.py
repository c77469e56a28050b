"""What a verdict is made from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from memgap.engine.given import GivenFlags
from memgap.kinds.registry import kind_of

Severity = Literal["suspect", "invalid", "unknown"]


@dataclass(frozen=True)
class Evidence:
    """A measured point: its record, its summary (docs/figures.md), the client's health, the machine."""

    record: Mapping[str, Any]
    summary: Mapping[str, float]
    client: Mapping[str, Any]
    hardware: Mapping[str, Any] = field(default_factory=dict)

    def number(self, name: str) -> float | None:
        """Return a value of the summary, None where it was not measured."""
        return self.summary.get(name)

    @property
    def open_loop(self) -> bool:
        """Whether requests arrived by a clock of their own."""
        return self.record["load"]["arrival"] not in ("closed", "all-at-once", "static")

    @property
    def api_servers(self) -> int:
        """How many API server processes all replicas have together."""
        if "server" not in self.record:
            return 1
        return GivenFlags.of(self.record).whole("api_servers", 1) * int(self.record["server"].get("replicas", 1))

    @property
    def shares_prefixes(self) -> bool:
        """Whether prefix-cache hits belong to the workload."""
        return kind_of(self.record).shares_prefixes(self.record)


@dataclass(frozen=True)
class Reason:
    """Why a point is not simply valid: the check, what was seen, the bound it broke, and a sentence."""

    check: str
    severity: Severity
    value: float
    bound: float
    text: str
