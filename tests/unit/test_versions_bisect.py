"""The search for the version that a step came with, on simulated versions."""

from collections.abc import Sequence

import numpy as np
import pytest

from memgap.versions.bisect import LOOKS, Measure, bisect, blamed_parts, most_comparisons

VERSIONS, SPREAD = 32, 0.008
"""The spread of a paired difference: 0.8 %, that of two runs of 10 s on a shared machine."""


def simulated(step: float, at: int, rng: np.random.Generator) -> Measure:
    """Return 32 versions of which those from `at` on are slower by a share."""
    truth = np.where(np.arange(VERSIONS) >= at, np.log1p(step), 0.0)
    noise = rng.normal(0.0, SPREAD, (VERSIONS, LOOKS[-1]))
    return lambda first, other, blocks: list(map(float, truth[other] - truth[first] + noise[other, :blocks]))


def test_a_planted_step_of_3_percent_is_named_in_six_comparisons() -> None:
    rng = np.random.default_rng(3)
    named, wrong = 0, 0
    for run in range(300):
        at = 1 + run % (VERSIONS - 1)
        found = bisect(VERSIONS, simulated(0.03, at, rng))
        assert len(found.comparisons) <= most_comparisons(VERSIONS) == 6
        named += found.version == at
        wrong += found.version not in (at, None)
    assert named / 300 >= 0.9
    assert wrong / 300 <= 0.05


def test_versions_that_are_alike_are_not_blamed() -> None:
    rng = np.random.default_rng(4)
    found = [bisect(VERSIONS, simulated(0.0, 1, rng)) for _ in range(300)]
    assert sum(one.by is not None for one in found) / 300 <= 0.05
    assert {len(one.comparisons) for one in found if one.by is None} == {1}


def test_a_version_that_got_faster_is_found_as_well() -> None:
    found = bisect(VERSIONS, simulated(-0.05, 20, np.random.default_rng(5)))
    assert (found.after, found.version) == (19, 20)
    assert found.ratio == pytest.approx(0.95, abs=0.01)


def test_where_noise_hides_it_a_range_is_said_and_nobody_blamed() -> None:
    def measure(first: int, other: int, blocks: int) -> Sequence[float]:
        size = 0.05 if other == 4 else 0.025
        return [size + (0.001 if block % 2 else -0.001) for block in range(blocks)]

    found = bisect(5, measure)
    assert found.version is None
    assert (found.after, found.by) == (0, 4)
    assert "half of the step" in found.why


def test_the_growth_of_a_step_is_split() -> None:
    before = [{"gpu_ms": 5.0, "schedule_ms": 1.0, "update_ms": 0.5, "prepare_ms": 1.0, "rest_ms": 0.1}]
    after = [{"gpu_ms": 5.1, "schedule_ms": 1.4, "update_ms": 0.5, "prepare_ms": 1.0, "rest_ms": 0.1}]
    found = blamed_parts(before, after)
    assert found == {"GPU": pytest.approx(0.1), "scheduler": pytest.approx(0.4), "host": pytest.approx(0.0)}
