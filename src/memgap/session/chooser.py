"""What a session measures next, by what was seen so far."""

from collections.abc import Mapping
from typing import Any, Protocol

from memgap.advisor.search import SEARCHES
from memgap.study.stop import Choice, Seen, choose


class Chooser(Protocol):
    """Says again and again what is wanted. `adaptive`: it may say otherwise after each point."""

    adaptive: bool

    def wanted(self, seen: Mapping[str, Seen]) -> Choice:
        """Return what is wanted of the points that are not in `seen`, by key, and what is spared, with the reason."""


class StopRules:
    """The points of a session plan as far as its stop rules want them; without rules, all of them."""

    def __init__(self, plan: Mapping[str, Any]) -> None:
        self._points, self._rules = plan["points"], plan["stop"]
        self.adaptive = bool(self._rules)

    def wanted(self, seen: Mapping[str, Seen]) -> Choice:
        """See Chooser."""
        return choose(self._points, self._rules, seen, SEARCHES)
