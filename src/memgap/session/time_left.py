"""How long what is still to be measured takes: from a probe of the server at first, then from what was measured."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """What the duration of a point depends on.

    `steps` of decoding are the load, which lasts `seconds` at the least. `beside_steps` are those of the warm-up and of
    what is waited for when a load in seconds is over. `at_once` requests are in flight: a step's duration depends on
    it.
    """

    steps: float
    at_once: int = 1
    seconds: float = 0.0
    beside_steps: float = 0.0

    def lasts_s(self, step_s: float) -> float:
        """Return the duration in seconds with steps of a duration."""
        return max(self.seconds, self.steps * step_s) + self.beside_steps * step_s


class TimeLeft:
    """Estimates a session's remaining seconds.

    How long a step takes is known by the number of requests in flight, from `probed` and then from the points that were
    measured: it is interpolated between two numbers, and as at the nearest one outside of them. What a point in seconds
    took beyond its steps (samples, counters, storing) is what the next one takes as well.
    """

    def __init__(self, work: Sequence[Work]) -> None:
        self._left = list(work)
        self._step_s: dict[int, float] = {}
        self._beyond_s = 0.0

    @property
    def to_probe(self) -> tuple[int, ...]:
        """The numbers of requests in flight that a probe is worth while for: the ends, where loads are in seconds."""
        if not any(one.seconds for one in self._left):
            return ()
        at_once = [one.at_once for one in self._left]
        return tuple(sorted({min(at_once), max(at_once)}))

    def probed(self, at_once: int, step_s: float) -> None:
        """Tell how long a step takes with so many requests in flight."""
        self._step_s[at_once] = step_s

    def finished(self, lasted_s: float | None, step_s: float | None = None) -> None:
        """Tell that the next point in line is done: how long it took, None where it was not measured here, and how
        long a step of it took where that is known."""
        work = self._left.pop(0)
        if lasted_s is None:
            return
        if not work.seconds:
            if work.steps:
                self._step_s[work.at_once] = max(self._step_s.get(work.at_once, 0.0), lasted_s / work.steps)
        elif step_s is not None:
            self._step_s[work.at_once] = step_s
            self._beyond_s = max(lasted_s - work.lasts_s(step_s), 0.0)

    def remaining_s(self) -> float | None:
        """Return the estimate in seconds, None while nothing is known."""
        return sum(map(self._lasts_s, self._left)) if self._step_s else None

    def _lasts_s(self, work: Work) -> float:
        return work.lasts_s(self._step_s_with(work.at_once)) + (self._beyond_s if work.seconds else 0.0)

    def _step_s_with(self, at_once: int) -> float:
        below = max((one for one in self._step_s if one <= at_once), default=min(self._step_s))
        above = min((one for one in self._step_s if one >= at_once), default=below)
        share = (at_once - below) / (above - below) if below < at_once < above else 0.0
        return self._step_s[below] + share * (self._step_s[above] - self._step_s[below])
