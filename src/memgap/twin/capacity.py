"""The highest load at which an SLO holds for a share of the requests, searched with a stated error.

The twin simulates windows at loads around its own boundary: how many requests keep the SLO, and how much more that
varies from window to window than chance among independent requests would make it (requests that queue hang together).
What it may be wrong about is where on the axis of loads this happens: a factor with a prior as wide as the twin is
unsure. Each measured window moves that factor's distribution; windows go to where the boundary may be. By how much the
tail of the twin's curve lies beside the server's is not seen in few windows: `SHAPE_ERROR` is added. The search ends
where an interval of the boundary that holds it with probability 1 - error is narrow enough. How often it really does is
measured against simulated servers: benchmarks/twin_capacity.py.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memgap.twin.arguments import MOST_WINDOWS, RESOLUTION
from memgap.twin.calibrate import Calibration, run
from memgap.twin.question import Question, asked
from memgap.twin.simulate import Run
from memgap.twin.stored import Observation

Array = NDArray[np.float64]

SHARE = 0.99
ERROR = 0.05
LEAST_UNSURE = 0.12
"""Prior standard deviation of the logarithm of the factor, at least: the twin was never right to less."""
SHAPE_ERROR = 0.05
"""Standard deviation of the logarithm of the boundary where the factor is known."""
TRUST = 0.5
"""The power of a window's likelihood: the spread of windows is the twin's, who may be wrong about it."""
_RATES = np.exp(np.linspace(math.log(0.5), math.log(1.6), 15))
_FACTORS = np.linspace(-1.2, 1.2, 481)
_SPREAD = np.exp(-0.5 * (np.linspace(-0.25, 0.25, 101) / SHAPE_ERROR) ** 2)


@dataclass(frozen=True)
class Window:
    """One measured run at a load: how many requests kept the SLO, of how many, and how long it took the server."""

    load: float
    good: int
    sent: int
    seconds: float


@dataclass(frozen=True)
class Shape:
    """What the twin expects of windows at `rates` (ascending): the share of requests that miss the SLO, and by how much
    its variance exceeds that of independent requests. `boundary` is where `share` is kept, `unsure` the standard
    deviation of its logarithm. Arrays of shape (rates,).
    """

    rates: Array
    missed: Array
    design: Array
    boundary: float
    unsure: float
    share: float = SHARE


@dataclass(frozen=True)
class Capacity:
    """The boundary: most likely value and the interval that holds it, the windows, and whether it is narrow enough.

    An end is 0 or infinity where no window showed the SLO kept, or missed.
    """

    load: float
    low: float
    high: float
    found: bool
    windows: tuple[Window, ...]

    @property
    def seconds(self) -> float:
        """How long the server was measured."""
        return sum(one.seconds for one in self.windows)


Measure = Callable[[float], Window]


class Belief:
    """The distribution of the factor between the server's boundary and the twin's."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        unsure = max(LEAST_UNSURE, shape.unsure)
        self._log = -0.5 * (_FACTORS / unsure) ** 2

    def see(self, window: Window) -> None:
        """Take a measured window into account."""
        at = np.log(window.load) - _FACTORS
        rates = np.log(self.shape.rates)
        missed = np.exp(np.interp(at, rates, np.log(self.shape.missed)))
        design = np.interp(at, rates, self.shape.design)
        between = np.clip((design - 1) / max(window.sent - 1, 1), 1e-6, 0.999)
        count = 1 / between - 1
        self._log = self._log + TRUST * _beta_binomial(
            window.sent - window.good, window.sent, missed * count, (1 - missed) * count
        )

    def quantile(self, share: float) -> float:
        """Return the load that the boundary lies below with this probability."""
        weights = np.convolve(np.exp(self._log - self._log.max()), _SPREAD, mode="same")
        total = np.cumsum(weights)
        return self.shape.boundary * math.exp(float(np.interp(share, (total - weights / 2) / total[-1], _FACTORS)))


def search(
    measure: Measure,
    shape: Shape,
    *,
    error: float = ERROR,
    resolution: float = RESOLUTION,
    most_windows: int = MOST_WINDOWS,
) -> Capacity:
    """Return the boundary with an interval that holds it with probability 1 - `error`.

    Windows go in turn to the most likely boundary and to a little below and above it, where an answer tells most of
    its two ends.
    """
    belief, windows = Belief(shape), list[Window]()
    while True:
        low, middle, high = (belief.quantile(share) for share in (error / 2, 0.5, 1 - error / 2))
        narrow = high <= low * (1 + resolution)
        if narrow or len(windows) >= most_windows:
            kept = [one.good >= shape.share * one.sent for one in windows]
            low, high = low if any(kept) else 0.0, high if not all(kept) else math.inf
            return Capacity(middle, low, high, narrow and any(kept) and not all(kept), tuple(windows))
        load = belief.quantile((0.5, 0.2, 0.8)[len(windows) % 3])
        windows.append(measure(load))
        belief.see(windows[-1])


def attained(one: Run, slo: Mapping[str, float]) -> tuple[int, int]:
    """Return how many requests kept all bounds of an SLO, such as {"ttft": 200.0, "tpot": 20.0} in ms, and how many
    there are. A request of one token keeps a bound of TPOT.
    """
    per_token = (one.last_ms - one.first_ms) / np.maximum(one.output_tokens - 1, 1)
    times = {"ttft": one.first_ms - one.sent_ms, "e2e": one.last_ms - one.sent_ms, "tpot": per_token}
    good = np.ones(len(one.last_ms), dtype=bool)
    for name, bound_ms in slo.items():
        good &= times[name] <= bound_ms
    return int(good.sum()), len(good)


def observed_design(windows: Sequence[Window]) -> float:
    """Return by how much the shares of alike windows vary more than those of independent requests; 1 at least."""
    shares = np.array([one.good / one.sent for one in windows])
    mean, each = float(shares.mean()), float(np.mean([one.sent for one in windows]))
    return 1.0 if mean in (0.0, 1.0) else max(1.0, float(shares.var(ddof=1)) * each / (mean * (1 - mean)))


@dataclass(frozen=True)
class Expectation:
    """What the twin says of an SLO: open loops of `requests` requests like those of a point."""

    calibration: Calibration
    like: Observation
    slo: Mapping[str, float]
    requests: int
    share: float = SHARE

    def window(self, rate_req_s: float, seed: int, theta: Array | None = None, factor: float = 1.0) -> Window:
        """Return a simulated window; other seeds are other arrivals and requests."""
        load = asked(Question(rate_req_s=rate_req_s, requests=self.requests, seed=seed), self.like)
        found = run(load, np.asarray(self.calibration.theta) if theta is None else theta, factor)
        good, sent = attained(found, self.slo)
        return Window(rate_req_s, good, sent, float(found.last_ms.max()) / 1e3)

    def boundary(self, theta: Array | None = None, factor: float = 1.0, windows: int = 3) -> float:
        """Return the rate at which the share is kept, in requests a second, to within 3 %, over few windows."""

        def kept(rate: float) -> bool:
            found = [self.window(rate, seed, theta, factor) for seed in range(windows)]
            return sum(one.good for one in found) >= self.share * sum(one.sent for one in found)

        rate, grows = 1.0, kept(1.0)
        while kept(rate * (2.0 if grows else 0.5)) == grows and 1e-3 < rate < 1e5:
            rate *= 2.0 if grows else 0.5
        low, high = (rate, 2 * rate) if grows else (rate / 2, rate)
        while high > 1.03 * low:
            middle = math.sqrt(low * high)
            low, high = (middle, high) if kept(middle) else (low, middle)
        return math.sqrt(low * high)

    def shape(self, windows: int = 20, draws: int = 4) -> Shape:
        """Return what the twin expects around its boundary, and how unsure it is of that by its coefficients."""
        near = self.boundary()
        rates = near * _RATES
        found = [[self.window(float(rate), 100 + seed) for seed in range(windows)] for rate in rates]
        sent = windows * self.requests
        counted = [sum(one.sent - one.good for one in own) for own in found]
        missed = _smooth(np.array(counted), sent, rates)
        boundary = math.exp(float(np.interp(math.log(1 - self.share), np.log(missed), np.log(rates))))
        design = np.maximum.accumulate([observed_design(own) for own in found])
        others = [math.log(self.boundary(theta, factor) / near) for theta, factor in self.calibration.draws(draws)]
        return Shape(rates, missed, design, boundary, math.sqrt(float(np.mean(np.square(others)))), self.share)


def _smooth(missed: Array, sent: int, rates: Array) -> Array:
    """Return the shares of missed requests, ascending: a cubic of their log odds, since few windows miss any."""
    # half a request more, so that a share of none has a logarithm
    share = (missed + 0.5) / (sent + 1.0)
    curve = np.polynomial.Polynomial.fit(np.log(rates), np.log(share / (1 - share)), 3, w=np.sqrt(missed + 0.5))
    odds = np.exp(curve(np.log(rates)))
    return np.asarray(np.maximum.accumulate(odds / (1 + odds)) * (1 + 1e-9 * np.arange(len(rates))))


_log_gamma = np.vectorize(math.lgamma, otypes=[float])


def _beta_binomial(hits: int, count: int, first: Array, second: Array) -> Array:
    """Return the logarithm of the probability of `hits` of `count`, less a part that does not depend on the rest."""
    return np.asarray(
        _log_gamma(hits + first)
        - _log_gamma(first)
        + _log_gamma(count - hits + second)
        - _log_gamma(second)
        - _log_gamma(count + first + second)
        + _log_gamma(first + second)
    )
