"""What a verdict is made from."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from memgap.datasets.spec import SHARED_PREFIX_KINDS
from memgap.kinds.locust.point import is_loadtest

Severity = Literal["suspect", "invalid"]


@dataclass(frozen=True)
class Evidence:
    """A measured point: its record, its summary (docs/figures.md), the client's health, the machine.

    `prefix_cache_emptied` says whether the server's prefix caches were emptied before the window, None where not known.
    """

    record: Mapping[str, Any]
    summary: Mapping[str, float]
    client: Mapping[str, Any]
    hardware: Mapping[str, Any] = field(default_factory=dict)
    prefix_cache_emptied: bool | None = None

    def number(self, name: str) -> float | None:
        """Return a value of the summary, None where it was not measured or is no finite number."""
        value = self.summary.get(name)
        return value if value is not None and math.isfinite(value) else None

    def of_client(self, name: str) -> float | None:
        """Return a value of the client's health, None where it was not measured or is no finite number."""
        value = self.client.get(name)
        return float(value) if value is not None and math.isfinite(value) else None

    @property
    def open_loop(self) -> bool:
        """Whether requests arrived by a clock of their own."""
        return self.record["load"]["arrival"] not in ("closed", "all-at-once", "static")

    @property
    def api_servers(self) -> int:
        """How many API server processes all replicas have together."""
        server = self.record.get("server", {})
        return int(server.get("args", {}).get("api-server-count", 1)) * int(server.get("replicas", 1))

    @property
    def shares_prefixes(self) -> bool:
        """Whether prefix-cache hits belong to the workload."""
        return self.record["dataset"]["kind"] in SHARED_PREFIX_KINDS or is_loadtest(self.record)


@dataclass(frozen=True)
class Reason:
    """Why a point is not simply valid: the check, what was seen, the bound it broke, and a sentence."""

    check: str
    severity: Severity
    value: float
    bound: float
    text: str
