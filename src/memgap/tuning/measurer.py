"""Measures points as far as they are wanted, or takes them from recorded data: what races and labs have in common."""

from collections.abc import Collection, Iterable, Sequence
from typing import Protocol

from memgap.points.point import Point
from memgap.store.points import PointStore
from memgap.tuning.failures import failure_class

Named = tuple[Point, str]
"""A point and what the progress calls it."""


class Measures(Protocol):
    """What measures the points of one server, see `memgap.tuning.servers.Servers`."""

    def measure(self, points: Sequence[Named]) -> None: ...


class Measurer:
    """The points of one race or lab. `recorded` is where they come from, None where they are measured; failures of the
    classes `skipped` are not tried again, and the keys `asked` are, once. `here` are the keys that were measured now.
    """

    def __init__(
        self, store: PointStore, recorded: str | None, skipped: Collection[str], asked: Collection[str] = ()
    ) -> None:
        self._store, self._recorded, self._skipped, self._asked = store, recorded, skipped, asked
        self.here: set[str] = set()

    def measure(self, named: Sequence[Named], servers: Measures) -> None:
        """Measure points of one server as far as they are wanted; what cannot be believed once more."""
        if self._recorded is not None:
            self._restore(point for point, _ in named)
            return
        todo = [one for one in named if self.wanted(one[0])]
        if not todo:
            return
        servers.measure(todo)
        self.here.update(point.key for point, _ in todo)
        doubtful = [
            (point, f"{label}, again")
            for point, label in todo
            if (stored := self._store.read(point.key)) is not None and failure_class(stored) == "invalid"
        ]
        if doubtful:  # a busy machine may have been the reason
            servers.measure(doubtful)

    def wanted(self, point: Point) -> bool:
        """Whether a point has to be measured: it is missing, or failed in a way that is tried again."""
        if point.key in self.here or self._recorded is not None:
            return False
        if self._store.status(point.key) in ("missing", "garbled"):
            return True
        stored = self._store.read(point.key) or {}
        failed = failure_class(stored)
        again = point.key in self._asked and point.key not in stored.get("remeasured_for", [])
        return again or "recorded" in stored or (failed is not None and failed not in self._skipped)

    def _restore(self, points: Iterable[Point]) -> None:
        # these need pandas, which an engine's environment may lack
        from memgap.recorded.files import study_folder
        from memgap.recorded.load import restore

        by_session: dict[str, list[str]] = {}
        for point in points:
            by_session.setdefault(point.session, []).append(point.key)
        for session, keys in by_session.items():
            restore(study_folder(str(self._recorded)), session, keys, self._store)
