"""One claim of the paper, what was found of it, and the verdict."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

HOLDS, SIZE, FAILS, UNKNOWN = "holds", "holds, differs in size", "does not hold", "not measured"
CLOSE = 0.10
"""Relative distance up to which a figure counts as the paper's."""
Source = TypeVar("Source")


@dataclass(frozen=True)
class Found:
    """A measured value with its interval, both bounds the value where none is known, and what explains a difference."""

    value: float
    low: float
    high: float
    because: str = ""


@dataclass(frozen=True)
class Claim(Generic[Source]):
    """One claim: its sentence, unit, the paper's value by model, how it is measured and judged.

    `always`: a model has a row also where neither the paper nor the measurement has a value.
    """

    sentence: str
    unit: str
    paper: Mapping[str, float]
    measure: Callable[[Source, str], Found | None]
    same_side: Callable[[float], bool]
    rule: str
    always: bool = False


def single(value: float, because: str = "") -> Found | None:
    """Return a value without an interval as found; None where it is not a number."""
    return None if value != value else Found(value, value, value, because)


def verdict(claim: Claim[Source], paper: float | None, found: Found | None) -> str:
    """Return whether a claim holds by its rule, and in which size: the paper's within `CLOSE` or the interval."""
    if found is None:
        return UNKNOWN
    if not claim.same_side(found.value):
        return FAILS
    if paper is None or abs(found.value - paper) <= CLOSE * abs(paper) or found.low <= paper <= found.high:
        return HOLDS
    return SIZE
