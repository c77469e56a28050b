"""What a verdict is made from."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from memgap.engine.given import GivenFlags
from memgap.kinds.registry import kind_of

SPECULATION = ("speculative-", "spec-", "num-speculative-tokens")
"""How flags begin that let an engine guess tokens, so that a step may give a request several."""
GATHERING = ("stream-interval", "num-scheduler-steps")
"""Flags by which a server sends several steps' tokens in one chunk."""

Severity = Literal["suspect", "invalid", "unknown"]


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
        """How many API server processes all servers of the record have together."""
        if "server" not in self.record:
            return 1
        flags, members = GivenFlags.of(self.record), len(self.record["server"].get("topology", {}).get("members", ()))
        return flags.whole("api_servers", 1) * (members or int(self.record["server"].get("replicas", 1)))

    @property
    def most_tokens_per_chunk(self) -> float:
        """How many tokens a chunk may hold by the server's own flags: 1, unless it speculates or gathers tokens.

        Infinite where the flags ask for it without saying how many, and where a reply is no stream.
        """
        if self.record.get("load", {}).get("stream") is False:
            return math.inf
        flags = {
            name.replace("_", "-"): value
            for name, value in self.record.get("server", {}).get("args", {}).items()
            if value not in (None, False)
        }
        return _speculated(flags) * _gathered(flags)

    @property
    def samples(self) -> int:
        """How many choices each request asked for."""
        return int(self.record.get("load", {}).get("samples", 1))

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

    @classmethod
    def graded(cls, check: str, value: float, suspect: float, invalid: float, text: str) -> "Reason | None":
        """Return a reason by the bound that a value, which should be low, broke; None up to `suspect`."""
        if value <= suspect:
            return None
        if value > invalid:
            return cls(check, "invalid", value, invalid, text)
        return cls(check, "suspect", value, suspect, text)


def _speculated(flags: Mapping[str, Any]) -> float:
    """Return the most tokens that one step of the engine gives a request: 1 and those that are guessed."""
    told = [value for name, value in flags.items() if name.startswith(SPECULATION)]
    if not told:
        return 1.0
    numbers = [flags.get("speculative-num-draft-tokens"), flags.get("num-speculative-tokens")]
    for value in told:
        config = _mapping(value)
        numbers.append(config.get("num_speculative_tokens", config.get("num-speculative-tokens")))
    known = [_number(one) for one in numbers if one is not None]
    return 1.0 + max(known) if known else math.inf


def _gathered(flags: Mapping[str, Any]) -> float:
    """Return how many steps' tokens the server gathers in a chunk."""
    return max((_number(flags[name]) for name in GATHERING if name in flags), default=1.0)


def _mapping(value: Any) -> Mapping[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return value if isinstance(value, Mapping) else {}


def _number(value: Any) -> float:
    """Return a flag's number from 1 on, infinity for what is none."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return math.inf
    return max(number, 1.0) if math.isfinite(number) else math.inf
