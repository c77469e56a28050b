"""Intervals of repeats, and how the advice holds under them."""

import pytest

from memgap.advisor.bca import Profile
from memgap.advisor.stability import stability
from memgap.stats.intervals import interval_of

SLO = {"ms": 20.0}


def profile() -> list[Profile]:
    """Return three caps, of which 8 is the answer by a little."""
    return [Profile(1, 100.0, 10.0), Profile(4, 300.0, 12.0), Profile(8, 310.0, 14.0)]


def test_without_intervals_the_answer_is_certain() -> None:
    found = stability(profile(), {}, SLO, 0.1, 8)
    assert found.same_fraction == 1.0
    assert found.by_cap == {8: 1000}


def test_wide_intervals_make_it_doubtful_and_the_same_every_time() -> None:
    found = stability(profile(), {4: (20.0, 0.0), 8: (20.0, 0.0)}, SLO, 0.1, 8)
    assert 0.6 < found.same_fraction < 0.9
    assert set(found.by_cap) == {4, 8}
    assert "4 in" in found.sentence and "8 in" in found.sentence
    assert stability(profile(), {4: (20.0, 0.0), 8: (20.0, 0.0)}, SLO, 0.1, 8) == found


def test_a_latency_near_the_bound_can_tip_it() -> None:
    found = stability(profile(), {8: (0.0, 2.0)}, {"ms": 14.0}, 0.1, 8)
    assert found.same_fraction == pytest.approx(0.5, abs=0.06)


def test_an_excluded_cap_is_never_drawn() -> None:
    excluded = [*profile(), Profile(16, None, None, "preempted")]
    assert 16 not in stability(excluded, {16: (5.0, 5.0)}, SLO, 0.1, 8).by_cap


def test_intervals_by_the_number_of_values() -> None:
    assert interval_of([5.0]).source == ""
    assert interval_of([5.0]).half_width == 0.0
    few = interval_of([1.0, 2.0, 3.0])
    assert (few.source, few.mean, few.values) == ("Student's t", 2.0, 3)
    many = interval_of([float(value) for value in range(12)])
    assert many.source == "bootstrap"
    assert many.low < many.mean < many.high
    assert interval_of([float("nan")]).values == 0
