"""When requests are meant to be sent."""

import numpy as np
from numpy.typing import NDArray

from memgap.errors import UserError
from memgap.load.records import LoadPlan

Offsets = NDArray[np.float64]


def intended_offsets_s(plan: LoadPlan, arrivals: int | None = None) -> Offsets | None:
    """Return the intended send times of `arrivals` requests (or conversations) in seconds since the window start.

    The first one is due at 0, and nothing is rescaled to hit the rate exactly.

    constant, poisson, gamma: gaps follow independently, so the time that n requests take is random but for constant;
    gamma has gaps of shape `burstiness` and mean 1 / rate (1 = poisson, below 1 = bursts, above 1 = more even).
    ramp: Poisson arrivals whose rate goes evenly from `rate_req_s` to `rate_end_req_s` while they come.
    bursts: groups of `burst_requests` every `burst_every_s`. closed: None, since each request is sent when an earlier
    one ends. Raises UserError for a trace, whose times come from its dataset.
    """
    count = plan.requests if arrivals is None else arrivals
    if plan.arrival == "closed":
        return None
    if plan.arrival == "all-at-once":
        return np.zeros(count)
    if plan.arrival == "trace":
        raise UserError("load.arrival is 'trace', which takes its times from a dataset of kind trace.")
    if plan.arrival == "bursts":
        assert plan.burst_requests is not None and plan.burst_every_s is not None
        return np.asarray(np.arange(count) // plan.burst_requests * plan.burst_every_s, dtype=np.float64)
    assert plan.rate_req_s is not None
    if plan.arrival == "constant":
        return np.arange(count, dtype=np.float64) / plan.rate_req_s
    rng = np.random.default_rng(plan.seed)
    shape = plan.burstiness if plan.arrival == "gamma" else 1.0
    unit = np.zeros(count)
    unit[1:] = np.cumsum(rng.gamma(shape, 1.0 / shape, count - 1))
    if plan.arrival == "ramp":
        assert plan.rate_end_req_s is not None
        return _ramp(unit, plan.rate_req_s, plan.rate_end_req_s)
    return unit / plan.rate_req_s


def think_times_s(plan: LoadPlan) -> Offsets:
    """Return the pause after each request in seconds: `think_time_s`, or exponentially distributed with that mean."""
    if plan.think_time == "fixed" or not plan.think_time_s:
        return np.full(plan.requests, plan.think_time_s)
    rng = np.random.default_rng([plan.seed, 1])
    return rng.exponential(plan.think_time_s, plan.requests)


def _ramp(expected: Offsets, start_req_s: float, end_req_s: float) -> Offsets:
    """Return when a rate that grows evenly has brought so many `expected` arrivals; after the ramp it stays."""
    last = max(len(expected) - 1, 1)
    span_s = 2 * last / (start_req_s + end_req_s)
    growth = (end_req_s - start_req_s) / span_s
    inside = np.minimum(expected, last)
    if abs(growth) * span_s < 1e-9 * start_req_s:
        times: Offsets = inside / start_req_s
    else:
        times = (np.sqrt(start_req_s**2 + 2 * growth * inside) - start_req_s) / growth
    return times + (expected - inside) / end_req_s
