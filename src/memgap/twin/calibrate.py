"""Coefficients of a server from a few of its measured points, as a distribution.

Each coefficient has a prior, its median and spread below, in the logarithm. A calibration moves them until simulated
runs show what was measured (Gauss-Newton with damping); what is left open is their covariance. Machines and starts
differ by a common factor of all times, whose spread comes from repeats, and from the prior where there are few.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from memgap.errors import UserError
from memgap.twin.arguments import POINTS
from memgap.twin.costs import FEATURES, Coefficients
from memgap.twin.outcome import summary
from memgap.twin.simulate import Frontend, Run, simulate
from memgap.twin.stored import Observation

Array = NDArray[np.float64]

PRIORS: Mapping[str, tuple[float, float]] = {
    "step": (0.5, 0.8),
    "dense_ms": (1.4, 0.25),
    "decode_attention_ms": (1.5, 0.4),
    "prefill_attention_ms": (1.8, 0.5),
    "sequences": (0.004, 1.0),
    "prompt_step": (0.8, 1.0),
    "mixed_attention_ms": (0.5, 1.0),
    "eager_step": (1.0, 1.0),
    "delay_ms": (4.0, 0.5),
    "service_ms": (1.0, 0.8),
    "jitter_ms": (0.4, 0.5),
}
"""Median, and standard deviation of the logarithm: the coefficients of FEATURES, the API servers' delay and service
time, and the standard deviation of a gap between tokens as a client sees it. Set by hand, near what five points of four
models on an H200 gave."""
FITTED: Mapping[str, float] = {
    "output_throughput_tok_s": 0.01,
    "itl_mean_ms": 0.015,
    "itl_median_ms": 0.02,
    "itl_p90_ms": 0.05,
    "itl_p99_ms": 0.08,
    "ttft_mean_ms": 0.06,
    "ttft_median_ms": 0.08,
    "ttft_p99_ms": 0.12,
}
"""What is fitted, with the share by which a value may miss."""
BETWEEN_STARTS = 0.02
"""Prior standard deviation of the logarithm of all times between starts and machines."""
BETWEEN_WEIGHT = 4.0
"""How many repeats the prior is worth."""
ELSEWHERE: Mapping[str, float] = {"step": 0.3, "sequences": 0.3, "delay_ms": 0.3, "service_ms": 0.3, "jitter_ms": 0.3}
ELSEWHERE_GPU = 0.1
"""By how much coefficients differ on another machine, as standard deviations of their logarithms; what a GPU does, by
the roofline of its own."""
_STEP = 0.1
_ROUNDS, _TRIES, _ENOUGH = 20, 8, 0.995
_LONGEST = 2.0
"""Of a step, in standard deviations: derivatives far away say little."""


@dataclass(frozen=True)
class Range:
    """Over what a quantity of the steps was calibrated."""

    low: float
    high: float


@dataclass(frozen=True)
class Calibration:
    """What calibration gave: `theta` in standard deviations of the priors, shape (11,), its `covariance` (11, 11), the
    spread between starts, the points it was made from, by how much it misses them, what their steps covered, and power
    in watts over running requests.
    """

    theta: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    between_starts: float
    points: tuple[Observation, ...]
    misses: Mapping[str, Mapping[str, float]]
    ranges: Mapping[str, Range]
    power_w: tuple[tuple[float, float], ...]

    @property
    def values(self) -> dict[str, float]:
        """Return the coefficients by their names in PRIORS, at the most likely."""
        return dict(zip(PRIORS, _values(np.asarray(self.theta)).tolist(), strict=True))

    def power_at(self, running: float) -> float | None:
        """Return the power in watts, interpolated over the logarithm of running requests; None where none is known."""
        if not self.power_w:
            return None
        requests, watts = np.array(self.power_w).T
        return float(np.interp(math.log(max(running, 1e-9)), np.log(requests), watts))

    def draws(self, count: int) -> list[tuple[Array, float]]:
        """Return `count` pairs of `theta` and a factor of all times, in opposite pairs, the same ones every time."""
        normal = np.random.RandomState(0).standard_normal((-(-count // 2), len(self.theta) + 1))
        normal = np.concatenate([normal, -normal])[:count]
        root = _root(np.asarray(self.covariance))
        theta = np.asarray(self.theta)
        return [(theta + root @ row[:-1], math.exp(self.between_starts * row[-1])) for row in normal]


def choose(points: Sequence[Observation], count: int = POINTS) -> list[Observation]:
    """Return the points to calibrate from: of the server and workload with most caps, those caps that lie most evenly
    in the logarithm between the least and the greatest that did not preempt, first repeats.

    Raises UserError where fewer than two caps were measured.
    """
    usable = [one for one in points if one.concurrency and not one.summary.get("preemptions")]
    groups: dict[tuple[str, str], dict[int, Observation]] = {}
    for one in sorted(usable, key=lambda one: (one.repeat, one.key)):
        groups.setdefault((one.workload, f"{one.server}{one.setup}"), {}).setdefault(one.batch_cap, one)
    caps = max(groups.values(), key=len, default={})
    if len(caps) < 2:
        raise UserError(
            f"the twin needs points of two batch caps or more of one workload in a closed loop, here are {len(caps)}."
        )
    wanted = np.geomspace(min(caps), max(caps), count)
    return [caps[cap] for cap in sorted({min(caps, key=lambda one: abs(math.log(one / at))) for at in wanted})]


@dataclass(frozen=True)
class Prior:
    """What is known of `theta` before points are seen: its most likely value and a root of the covariance's inverse."""

    middle: Array
    whitening: Array


def broad() -> Prior:
    """Return the prior of a server of which nothing is known."""
    return Prior(np.zeros(len(PRIORS)), np.eye(len(PRIORS)))


def elsewhere(known: Calibration) -> Prior:
    """Return what a calibration on one machine says of the same model on another one, or on another GPU."""
    differ = [ELSEWHERE.get(name, ELSEWHERE_GPU) / spread for name, (_, spread) in PRIORS.items()]
    covariance = np.asarray(known.covariance) + np.diag(np.square(differ))
    return Prior(np.asarray(known.theta), np.linalg.inv(np.linalg.cholesky(covariance)))


def transferred(known: Calibration) -> Calibration:
    """Return a calibration as it holds on another machine none of whose points is known."""
    whitening = elsewhere(known).whitening
    covariance = np.linalg.inv(whitening.T @ whitening)
    return replace(known, covariance=tuple(tuple(row) for row in covariance.tolist()))


def calibrate(
    points: Sequence[Observation], repeats: Sequence[Observation] = (), prior: Prior | None = None
) -> Calibration:
    """Return the calibration of a server from `points`; `repeats` of theirs tell how far starts differ.

    Raises UserError for points of several models.
    """
    if len({one.model for one in points}) != 1:
        raise UserError("the twin is calibrated from points of one model at a time.")
    theta, jacobian, residuals = _fit(points, prior or broad())
    misfit = float(residuals[: -len(PRIORS)] @ residuals[: -len(PRIORS)]) / max(1, len(residuals) - len(PRIORS))
    covariance = np.linalg.inv(jacobian.T @ jacobian) * max(1.0, misfit)
    runs = [run(one, theta) for one in points]
    found = [summary(one, _values(theta)[-1]) for one in runs]
    misses = {
        one.key: {name: said[name] / one.summary[name] - 1 for name in FITTED if _known(one.summary, name)}
        for one, said in zip(points, found, strict=True)
    }
    return Calibration(
        theta=tuple(theta.tolist()),
        covariance=tuple(tuple(row) for row in covariance.tolist()),
        between_starts=_between_starts([*points, *repeats]),
        points=tuple(points),
        misses=misses,
        ranges=covered(runs),
        power_w=_power(points),
    )


def run(point: Observation, theta: Array, factor: float = 1.0) -> Run:
    """Simulate a point with coefficients `theta`, all step times `factor` times as long."""
    values = _values(theta)
    steps = Coefficients(tuple((factor * values[: len(FEATURES)]).tolist()))
    front = Frontend(*values[len(FEATURES) : len(FEATURES) + 2].tolist())
    return simulate(point.requests, point.server, point.roofline, steps, front, point.concurrency)


def covered(runs: Sequence[Run]) -> dict[str, Range]:
    """Return over what the steps of some runs reach."""
    spans: dict[str, list[float]] = {}
    for one in runs:
        steps, busy = one.steps, one.steps.decodes > 0
        chunk = steps.features[:, FEATURES.index("prefill_attention_ms")]
        spans.setdefault("sequences in a step", []).extend([steps.decodes[busy].min(), steps.decodes.max()])
        attention = steps.features[busy, FEATURES.index("decode_attention_ms")]
        each = attention / steps.decodes[busy]
        spans.setdefault("attention a sequence, ms", []).extend([float(each.min()), float(each.max())])
        spans.setdefault("prompt attention of a step, ms", []).extend([0.0, float(chunk.max())])
    return {name: Range(float(min(values)), float(max(values))) for name, values in spans.items()}


def _values(theta: Array) -> Array:
    priors = np.array(list(PRIORS.values()))
    return np.asarray(priors[:, 0] * np.exp(priors[:, 1] * theta))


def _known(summary: Mapping[str, float], name: str) -> bool:
    return math.isfinite(summary.get(name, math.nan)) and summary[name] > 0


def _residuals(points: Sequence[Observation], theta: Array, prior: Prior) -> Array:
    found: list[float] = []
    for one in points:
        said = summary(run(one, theta), _values(theta)[-1])
        found += [
            math.log(said[name] / one.summary[name]) / share
            for name, share in FITTED.items()
            if _known(one.summary, name) and name in said
        ]
    return np.concatenate([found, prior.whitening @ (theta - prior.middle)])


def _fit(points: Sequence[Observation], prior: Prior) -> tuple[Array, Array, Array]:
    """Return the most likely theta, and there the derivatives of the residuals and the residuals."""
    theta = prior.middle.copy()
    residuals, damping = _residuals(points, theta, prior), 1e-2
    for _ in range(_ROUNDS):
        jacobian = _jacobian(points, theta, residuals, prior)
        normal, before = jacobian.T @ jacobian, float(residuals @ residuals)
        for _ in range(_TRIES):
            step = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), -jacobian.T @ residuals)
            moved = theta + step * min(1.0, _LONGEST / float(np.abs(step).max()))
            tried = _residuals(points, moved, prior)
            if tried @ tried < before:
                theta, residuals, damping = moved, tried, damping / 5
                break
            damping *= 5
        if residuals @ residuals > _ENOUGH * before:
            break
    return theta, _jacobian(points, theta, residuals, prior), residuals


def _jacobian(points: Sequence[Observation], theta: Array, residuals: Array, prior: Prior) -> Array:
    columns = []
    for place in range(len(theta)):
        moved = theta.copy()
        moved[place] += _STEP
        columns.append((_residuals(points, moved, prior) - residuals) / _STEP)
    return np.stack(columns, axis=1)


def _between_starts(points: Sequence[Observation]) -> float:
    """Return the standard deviation of the logarithm of throughput between repeats, drawn towards the prior."""
    same: dict[tuple[int, str, str], list[float]] = {}
    for one in points:
        if not _known(one.summary, "output_throughput_tok_s"):
            continue
        load = (one.batch_cap, one.workload, f"{one.rate_req_s}{one.server}")
        same.setdefault(load, []).append(math.log(one.summary["output_throughput_tok_s"]))
    squares, freedom = BETWEEN_WEIGHT * BETWEEN_STARTS**2, BETWEEN_WEIGHT
    for values in same.values():
        squares += float(np.var(values)) * len(values)
        freedom += len(values) - 1
    return math.sqrt(squares / freedom)


def _power(points: Sequence[Observation]) -> tuple[tuple[float, float], ...]:
    """Return pairs of mean running requests and mean power in watts, ascending; none unless power was measured."""
    names = "mean_running_reqs", "gpu_power_mean_w"
    known = [point.summary for point in points if all(_known(point.summary, name) for name in names)]
    return tuple(sorted((one[names[0]], one[names[1]]) for one in known))


def _root(covariance: Array) -> Array:
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(vectors * np.sqrt(np.clip(values, 0.0, None)))
