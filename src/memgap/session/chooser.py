"""What a session measures next, by what was seen so far."""

from collections.abc import Mapping
from typing import Any, Protocol

from memgap.study.stop import Choice, Seen, choose


class Chooser(Protocol):
    """Says again and again what is wanted. `adaptive`: it may say otherwise after each point."""

    adaptive: bool

    def wanted(self, seen: Mapping[str, Seen]) -> Choice:
        """Return what is wanted of the points that are not in `seen`, by key, and what is spared, with the reason."""


class AllPoints:
    """Every point of a plan."""

    adaptive = False

    def __init__(self, plan: Mapping[str, Any]) -> None:
        self._keys = [point["key"] for point in plan["points"]]

    def wanted(self, seen: Mapping[str, Seen]) -> Choice:
        """See Chooser."""
        return Choice([key for key in self._keys if key not in seen], {})


class StopRules:
    """The points of a plan as far as its stop rules want them."""

    adaptive = True

    def __init__(self, plan: Mapping[str, Any]) -> None:
        self._plan = plan

    def wanted(self, seen: Mapping[str, Seen]) -> Choice:
        """See Chooser."""
        return choose(self._plan["points"], self._plan["stop"], seen)


def chooser_of(plan: Mapping[str, Any]) -> Chooser:
    """Return what chooses among the points of a session plan."""
    return StopRules(plan) if plan["stop"] else AllPoints(plan)
