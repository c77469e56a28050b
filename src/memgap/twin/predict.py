"""What the twin answers: a server's load, as a summary with intervals, and where it goes beyond what was measured."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from memgap.roofline.predict import Setup
from memgap.twin.calibrate import Calibration, covered, run
from memgap.twin.costs import FEATURES
from memgap.twin.outcome import summary
from memgap.twin.simulate import Run
from memgap.twin.stored import Observation

DRAWS = 8
LEVEL = 0.9
_Z = 1.645
"""Of a two-sided interval of LEVEL."""
MODEL_ERRORS: Mapping[str, float] = {
    "throughput": 0.02,
    "itl_mean": 0.025,
    "itl_median": 0.03,
    "itl_p90": 0.08,
    "itl_p95": 0.08,
    "itl_p99": 0.12,
    "tpot_p99": 0.04,
    "tpot": 0.03,
    "e2e": 0.03,
    "ttft_mean": 0.10,
    "ttft_median": 0.13,
    "ttft": 0.18,
    "gpu_power": 0.1,
    "energy": 0.08,
}
"""What the model itself misses, as a standard deviation of the logarithm by the beginning of a quantity's name (the
first that fits). Set from the held-out points of the recorded models, see docs/twin.md."""
BEYOND = 1.1
"""A step quantity may exceed its calibrated range by this factor before a prediction counts as extrapolated."""
EXTRAPOLATED = 2.0
"""Of the model's own error, where it extrapolates."""


@dataclass(frozen=True)
class Estimate:
    """A value with the ends of its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Prediction:
    """What a load would show. `extrapolates` has a sentence for each quantity beyond what was calibrated; empty where
    none is. `run` is the simulation at the most likely coefficients.
    """

    values: Mapping[str, Estimate]
    extrapolates: tuple[str, ...]
    run: Run


def predict(calibration: Calibration, question: Observation, draws: int = DRAWS) -> Prediction:
    """Return what a calibrated server would show under the load of `question`, whose summary is not looked at.

    The interval of each value holds it with the probability LEVEL: it covers the coefficients, the differences between
    starts and the model's own error.
    """
    theta = np.asarray(calibration.theta)
    jitter = calibration.values["jitter_ms"]
    central = run(question, theta)
    middle = _told(summary(central, jitter), central, question.setup, calibration)
    spread: dict[str, list[float]] = {}
    for drawn, factor in calibration.draws(draws):
        one = run(question, drawn, factor)
        for name, value in _told(summary(one, jitter), one, question.setup, calibration).items():
            spread.setdefault(name, []).append(value)
    beyond = _beyond(calibration, central)
    widened = EXTRAPOLATED if beyond else 1.0
    values = {name: _estimate(name, value, spread.get(name, []), widened) for name, value in middle.items()}
    return Prediction(values, beyond, central)


def _told(found: dict[str, float], one: Run, setup: Setup, calibration: Calibration) -> dict[str, float]:
    """Return a summary with what the roofline and the power model say of the run."""
    steps = one.steps
    count, decodes = steps.count.sum(), (steps.decodes * steps.count).sum()
    if decodes:
        kernels = setup.decode(max(decodes / count, 1.0), 1.0)
        weights = sum(one.count * one.required_bytes for one in kernels if one.kernel_class in ("matmul", "state"))
        attention = steps.features[:, FEATURES.index("decode_attention_ms")]
        reading_ms = (attention * steps.count + steps.growth * steps.count * (steps.count - 1) / 2).sum()
        read = weights * count + reading_ms / 1e3 * setup.bandwidth_bytes_s
        found["mbu_fraction"] = float(read / found["duration_s"] / setup.gpu.bandwidth_bytes_s)
    watts = calibration.power_at(found["mean_running_reqs"])
    if watts is not None:
        found["gpu_power_mean_w"] = watts
        found["energy_per_output_token_j"] = watts / found["output_throughput_tok_s"]
    return found


def model_error(name: str) -> float:
    """Return the standard deviation of the logarithm by which the model itself misses a quantity."""
    plain = name.replace("output_", "").replace("total_", "").replace("request_", "")
    return next((error for begin, error in MODEL_ERRORS.items() if plain.startswith(begin)), 0.05)


def _estimate(name: str, value: float, drawn: Sequence[float], widened: float) -> Estimate:
    """Return a value with its interval: half of the draws' variance on each side alike, half where they lie."""
    known = [one for one in drawn if one > 0]
    if value <= 0 or not known:
        return Estimate(value, min([value, *drawn]), max([value, *drawn]))
    off = np.log(known) - math.log(value)
    both = float((off**2).mean()) / 2 + (widened * model_error(name)) ** 2
    ends = [_Z * math.sqrt(float((np.clip(side * off, 0.0, None) ** 2).mean()) + both) for side in (-1, 1)]
    return Estimate(value, value * math.exp(-ends[0]), value * math.exp(ends[1]))


def _beyond(calibration: Calibration, one: Run) -> tuple[str, ...]:
    said = []
    for name, span in covered([one]).items():
        known = calibration.ranges[name]
        if span.high > BEYOND * known.high or span.low < known.low / BEYOND:
            said.append(
                f"{name}: {span.low:.3g} to {span.high:.3g}, calibrated from {known.low:.3g} to {known.high:.3g}"
            )
    return tuple(said)
