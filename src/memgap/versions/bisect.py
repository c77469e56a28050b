"""Which of many versions a step came with: a search by halves that compares versions in blocks.

The first comparison, of the oldest with the newest version, says whether there is a step and how large it is. Each
further one asks on which side of half that step a version lies, against the oldest one. Blocks are added until an
interval leaves that bound, at a level that is divided by the number of comparisons and of looks; where it never does
the search ends with a range of versions, and blames none.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev

from memgap.stats.student import t_quantile

FALSE_BLAME = 0.05
"""Chance that any comparison of a search goes the wrong way."""
LOOKS = (4, 8, 16, 32)
"""Numbers of blocks after which a comparison is looked at."""
LEAST_STEP = 0.01
"""A smaller step is none."""
Measure = Callable[[int, int, int], Sequence[float]]
"""(first version, other version, blocks) -> log of the metric of the other one by the first's, by block."""


@dataclass(frozen=True)
class Comparison:
    """The other version against the first: the ratio of the metric after so many blocks, and what was concluded."""

    first: int
    other: int
    ratio: float
    blocks: int
    verdict: str


@dataclass(frozen=True)
class Blame:
    """What a search found: the step is between `after` and `by`, versions by their place; None where there is none.

    It is one version's where these are neighbours. `ratio` is the step's size, `why` in words why it ended.
    """

    after: int | None
    by: int | None
    ratio: float | None
    why: str
    comparisons: list[Comparison] = field(default_factory=list)

    @property
    def version(self) -> int | None:
        """The version that is blamed, None where that is not known."""
        return self.by if self.after is not None and self.by == self.after + 1 else None


def most_comparisons(versions: int) -> int:
    """Return how many comparisons a search among so many versions takes at most."""
    return 1 + math.ceil(math.log2(max(1, versions - 1)))


def bisect(versions: int, measure: Measure) -> Blame:
    """Search the version whose metric differs from the one before by `LEAST_STEP` or more; see the module's text."""
    tail = FALSE_BLAME / (most_comparisons(versions) * len(LOOKS))
    first, last, done = 0, versions - 1, list[Comparison]()
    step, blocks, size = _against(measure, first, last, (-math.log1p(LEAST_STEP), math.log1p(LEAST_STEP)), tail / 2)
    done.append(Comparison(first, last, math.exp(size), blocks, {-1: "less", 0: "no step", 1: "more"}[step]))
    if not step:
        return Blame(None, None, None, f"no step of {LEAST_STEP:.0%} or more between the first and the last", done)
    low, high = first, last
    while high - low > 1:
        middle = (low + high) // 2
        side, blocks, seen = _against(measure, first, middle, (size / 2, size / 2), tail)
        stepped = side == (1 if size > 0 else -1)
        verdict = "undecided" if not side else "with the step" if stepped else "without it"
        done.append(Comparison(first, middle, math.exp(seen), blocks, verdict))
        if not side:
            return Blame(low, high, math.exp(size), f"version {middle} lies too near to half of the step", done)
        low, high = (low, middle) if stepped else (middle, high)
    return Blame(low, high, math.exp(size), "neighbours", done)


def _against(
    measure: Measure, first: int, other: int, bounds: tuple[float, float], tail: float
) -> tuple[int, int, float]:
    """Return whether the other version lies below (-1) or above (1) the bounds, or neither (0), and blocks and mean.

    `tail` is the chance in one tail of one look. Between different bounds it is enough to be inside of them.
    """
    mean, blocks = 0.0, 0
    for blocks in LOOKS:
        values = measure(first, other, blocks)
        mean = fmean(values)
        half = t_quantile(tail, len(values) - 1) * stdev(values) / math.sqrt(len(values))
        if mean + half < bounds[0]:
            return -1, blocks, mean
        if mean - half > bounds[1]:
            return 1, blocks, mean
        if bounds[0] < mean - half and mean + half < bounds[1]:
            return 0, blocks, mean
    return 0, blocks, mean


PARTS: Mapping[str, tuple[str, ...]] = {
    "GPU": ("gpu_ms",),
    "scheduler": ("schedule_ms", "update_ms"),
    "host": ("prepare_ms", "fetch_ms", "output_ms", "detokenize_ms", "rest_ms"),
}
"""The parts of a decode step, as offline points have them, by who spends them."""


def blamed_parts(before: Sequence[Mapping[str, float]], after: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return by how many ms a mean decode step grew with each of `PARTS`, from summaries of offline points.

    Parts that neither side has are left out; with synchronous scheduling they sum to the step's own growth.
    """
    found = {}
    for who, names in PARTS.items():
        known = [name for name in names if all(name in one for one in (*before, *after))]
        if known:
            found[who] = sum(fmean(one[n] for one in after) - fmean(one[n] for one in before) for n in known)
    return found
