"""Verdicts on two sides: what a real difference is called, and how often none is called one."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from memgap.stats.paired import EQUAL, FASTER, SLOWER, UNDECIDED, judged, verdict_of


def drawn(rng: np.random.Generator, shift: float, blocks: int, cells: int) -> Mapping[tuple[str, str], Sequence[float]]:
    """Return differences by block of one metric in cells, with a spread of 0.5 %."""
    table = rng.normal(math.log1p(shift), 0.005, (cells, blocks))
    return {("m", str(cell)): list(map(float, row)) for cell, row in enumerate(table)}


@pytest.mark.parametrize(("shift", "verdict"), [(0.06, FASTER), (-0.06, SLOWER), (0.0, EQUAL)])
def test_a_difference_is_called_what_it_is(shift: float, verdict: str) -> None:
    found = judged(drawn(np.random.default_rng(1), shift, 3, 12), 0.02)
    assert {one.verdict for one in found.values()} == {verdict}


def test_sides_that_are_alike_are_called_different_in_at_most_one_comparison_of_twenty() -> None:
    rng = np.random.default_rng(7)
    runs = [judged(drawn(rng, 0.0, 3, 6), 0.001).values() for _ in range(400)]
    wrong = sum(any(one.verdict in (FASTER, SLOWER) for one in run) for run in runs)
    missed = sum(any(not (one.low or 0) <= 1 <= (one.high or 0) for one in run) for run in runs)
    assert max(wrong, missed) / len(runs) <= 0.05


def test_a_difference_within_the_margin_is_equal_and_one_block_decides_nothing() -> None:
    assert verdict_of(0.001, 0.004, 0.02) == EQUAL
    assert verdict_of(-0.03, 0.01, 0.02) == UNDECIDED
    (found,) = judged({("m", "c"): [0.5]}, 0.02).values()
    assert (found.verdict, found.low, found.blocks) == (UNDECIDED, None, 1)
    assert found.ratio == pytest.approx(math.exp(0.5))
