"""When requests are meant to be sent."""

import numpy as np
from numpy.typing import NDArray

from memgap.load.records import LoadPlan


def intended_offsets_s(plan: LoadPlan) -> NDArray[np.float64] | None:
    """Return the intended send times of `plan.requests` requests in seconds since the window start.

    The first request is due at 0 and the gaps follow independently, so the time that n requests take is
    random for poisson and gamma arrivals; nothing is rescaled to hit the rate exactly. gamma: gaps of shape
    `burstiness` and mean 1 / rate (1 = poisson, below 1 = bursts, above 1 = more even). closed: None, since
    each request is sent when an earlier one ends.
    """
    if plan.arrival == "closed":
        return None
    if plan.arrival == "all-at-once":
        return np.zeros(plan.requests)
    assert plan.rate_req_s is not None
    mean_gap_s = 1.0 / plan.rate_req_s
    if plan.arrival == "constant":
        return np.arange(plan.requests, dtype=np.float64) * mean_gap_s
    rng = np.random.default_rng(plan.seed)
    shape = 1.0 if plan.arrival == "poisson" else plan.burstiness
    offsets_s = np.zeros(plan.requests)
    offsets_s[1:] = np.cumsum(rng.gamma(shape, mean_gap_s / shape, plan.requests - 1))
    return offsets_s
