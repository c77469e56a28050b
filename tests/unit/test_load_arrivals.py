"""Send times."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from memgap.errors import UserError
from memgap.load.arrivals import intended_offsets_s, think_times_s
from memgap.load.records import Arrival, LoadPlan, Prompt


def _offsets(arrival: Arrival, requests: int, burstiness: float = 1.0, seed: int = 0) -> NDArray[np.float64]:
    plan = LoadPlan("m", arrival, requests, rate_req_s=50.0, burstiness=burstiness, seed=seed)
    offsets_s = intended_offsets_s(plan)
    assert offsets_s is not None
    assert offsets_s[0] == 0
    assert (np.diff(offsets_s) >= 0).all()
    return offsets_s


@pytest.mark.parametrize("shape", [0.25, 1.0, 4.0])
def test_gamma_gaps_have_the_mean_and_spread_of_their_shape(shape: float) -> None:
    gaps = np.diff(_offsets("gamma", 40001, shape))
    assert gaps.mean() == pytest.approx(1 / 50, rel=0.05)
    assert gaps.std() / gaps.mean() == pytest.approx(shape**-0.5, rel=0.05)


def test_poisson_is_gamma_of_shape_one() -> None:
    assert (_offsets("poisson", 100) == _offsets("gamma", 100, 1.0)).all()


def test_seed_decides_and_the_total_time_is_not_rescaled() -> None:
    assert (_offsets("poisson", 50, seed=3) == _offsets("poisson", 50, seed=3)).all()
    assert _offsets("poisson", 50, seed=3)[-1] != _offsets("poisson", 50, seed=4)[-1]


def test_constant_and_all_at_once() -> None:
    assert _offsets("constant", 4).tolist() == pytest.approx([0, 0.02, 0.04, 0.06])
    assert _offsets("all-at-once", 3).tolist() == [0, 0, 0]
    assert _offsets("poisson", 1).tolist() == [0]


def test_closed_loop_has_no_intended_times() -> None:
    assert intended_offsets_s(LoadPlan("m", "closed", 5, concurrency=2)) is None


@pytest.mark.parametrize(
    ("load", "named"),
    [
        ({"arrival": "closed", "requests": 5}, "concurrency"),
        ({"arrival": "closed", "requests": 5, "concurrency": 0}, "concurrency"),
        ({"arrival": "poisson", "requests": 5}, "rate_req_s"),
        ({"arrival": "poisson", "requests": 5, "rate_req_s": float("inf")}, "rate_req_s"),
        ({"arrival": "sometimes", "requests": 5}, "arrival"),
        ({"arrival": "all-at-once", "requests": 0}, "requests"),
        ({"arrival": "all-at-once"}, "requests"),
        ({"arrival": "all-at-once", "requests": 1, "endpoint": "images"}, "endpoint"),
        ({"arrival": "all-at-once", "requests": 1, "speed": 1}, "speed"),
        ({"arrival": "all-at-once", "requests": 1, "temperature": -1}, "temperature"),
    ],
)
def test_bad_plans_are_refused_by_name(load: dict[str, object], named: str) -> None:
    with pytest.raises(UserError, match=named):
        LoadPlan.from_record(load, "m")


def test_key_is_not_shown() -> None:
    assert "hush" not in repr(LoadPlan("m", "all-at-once", 1, api_key="hush"))


def test_prompt_has_one_input() -> None:
    with pytest.raises(UserError):
        Prompt(4)
    with pytest.raises(UserError):
        Prompt(4, [1], "a")
    with pytest.raises(UserError):
        Prompt(4, [])
    with pytest.raises(UserError):
        Prompt(0, [1])


def test_a_ramp_goes_from_one_rate_to_the_other() -> None:
    plan = LoadPlan("m", "ramp", 6000, rate_req_s=10.0, rate_end_req_s=50.0, seed=3)
    offsets = intended_offsets_s(plan)
    assert offsets is not None
    span = 6000 * 2 / 60
    first, last = ((offsets < span / 10).sum() / (span / 10), (offsets > span * 0.9).sum() / (span * 0.1))
    assert first == pytest.approx(12, rel=0.2)
    assert last == pytest.approx(48, rel=0.1)
    assert (np.diff(offsets) >= 0).all()
    level = intended_offsets_s(LoadPlan("m", "ramp", 100, rate_req_s=10.0, rate_end_req_s=10.0, seed=3))
    poisson = intended_offsets_s(LoadPlan("m", "poisson", 100, rate_req_s=10.0, seed=3))
    assert level is not None and poisson is not None
    assert np.allclose(level, poisson)


def test_bursts_come_together() -> None:
    offsets = intended_offsets_s(LoadPlan("m", "bursts", 7, burst_requests=3, burst_every_s=2.0))
    assert offsets is not None
    assert offsets.tolist() == [0, 0, 0, 2, 2, 2, 4]


def test_pauses_are_fixed_or_exponential() -> None:
    assert set(think_times_s(LoadPlan("m", "closed", 5, concurrency=1, think_time_s=0.5))) == {0.5}
    drawn = think_times_s(
        LoadPlan("m", "closed", 5000, concurrency=1, think_time_s=0.5, think_time="exponential", seed=1)
    )
    assert drawn.mean() == pytest.approx(0.5, rel=0.1)
    assert drawn.std() == pytest.approx(0.5, rel=0.1)


@pytest.mark.parametrize(
    ("arrival", "changes", "message"),
    [
        ("ramp", {"rate_req_s": 1.0}, "rate_end_req_s is missing"),
        ("bursts", {"burst_requests": 3}, "burst_every_s"),
        ("closed", {"concurrency": 1, "think_time_s": -1.0}, "think_time_s"),
        ("closed", {"concurrency": 1, "think_time": "long"}, "fixed, exponential"),
    ],
)
def test_what_an_arrival_lacks_is_said(arrival: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        LoadPlan("m", arrival, 4, **changes)
