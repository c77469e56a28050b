"""What a calibration says of itself, what it misses of points it was not made from, and answers as rows."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from memgap.errors import UserError
from memgap.twin.calibrate import FITTED, PRIORS, Calibration, calibrate, choose
from memgap.twin.predict import LEVEL, Prediction, predict
from memgap.twin.stored import Observation, observation

QUANTITIES = (
    *("output_throughput_tok_s", "total_throughput_tok_s", "request_throughput_req_s"),
    *(f"{name}_{what}_ms" for name in ("ttft", "tpot", "itl", "e2e") for what in ("mean", "median", "p90", "p99")),
    *("mean_running_reqs", "mean_waiting_reqs", "kv_cache_usage_max_fraction", "preemptions"),
    *("mbu_fraction", "gpu_power_mean_w", "energy_per_output_token_j"),
)
"""What is told of a load."""
COLUMNS = (
    *("model", "key", "load", "workload", "batch_cap", "rate_req_s", "repeat", "role", "quantity"),
    *("predicted", "low", "high", "measured", "error_fraction", "inside", "extrapolates"),
)
CALIBRATED, HELD_OUT = "calibrated", "held out"
_Z = 1.645


def observations(points: Sequence[Mapping[str, Any]], model: str) -> tuple[list[Observation], list[str]]:
    """Return what the twin can take of stored points of a model, and a sentence for each that it cannot."""
    found, left_out = [], []
    for point in points:
        if point["record"]["model"]["name"] != model or point["status"] != "ok":
            continue
        try:
            found.append(observation(point))
        except UserError as error:
            left_out.append(str(error))
    return found, left_out


def calibrated(points: Sequence[Observation], count: int) -> Calibration:
    """Return a calibration from `count` of the points, further repeats of which tell how far starts differ."""
    chosen = choose(points, count)
    same = {(one.batch_cap, one.workload, one.server) for one in chosen}
    return calibrate(chosen, [one for one in points if (one.batch_cap, one.workload, one.server) in same])


def rows(calibration: Calibration, points: Sequence[Observation]) -> list[dict[str, Any]]:
    """Return a row with COLUMNS for each point and quantity that was measured of it."""
    keys = {one.key for one in calibration.points}
    found = []
    for point in points:
        said = predict(calibration, point)
        for name in QUANTITIES:
            if name not in said.values:
                continue
            value, measured = said.values[name], point.summary.get(name, math.nan)
            found.append(
                {
                    "model": point.model,
                    "key": point.key,
                    "load": "closed" if point.concurrency else "open",
                    "workload": point.workload,
                    "batch_cap": point.batch_cap,
                    "rate_req_s": point.rate_req_s,
                    "repeat": point.repeat,
                    "role": CALIBRATED if point.key in keys else HELD_OUT,
                    "quantity": name,
                    "predicted": value.value,
                    "low": value.low,
                    "high": value.high,
                    "measured": measured,
                    "error_fraction": value.value / measured - 1 if measured else math.nan,
                    "inside": value.low <= measured <= value.high,
                    "extrapolates": "; ".join(said.extrapolates),
                }
            )
    return found


def document(calibration: Calibration, left_out: Sequence[str], found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a calibration as results/twin/<model>.yaml has it; `found` are the rows of all its model's points."""
    first = calibration.points[0]
    covariance = calibration.covariance
    return {
        "model": first.model,
        "gpu": first.setup.gpu.alias,
        "dtype": first.setup.dtype,
        "calibrated_from": [
            {
                "point": one.name,
                "missed_by": {name: round(value, 4) for name, value in calibration.misses[one.key].items()},
            }
            for one in calibration.points
        ],
        "coefficients": {
            name: {
                "value": _round(value),
                "low": _round(value * math.exp(-_Z * spread * math.sqrt(covariance[place][place]))),
                "high": _round(value * math.exp(_Z * spread * math.sqrt(covariance[place][place]))),
            }
            for place, ((name, value), (_, spread)) in enumerate(
                zip(calibration.values.items(), PRIORS.values(), strict=True)
            )
        },
        "between_starts_fraction": _round(calibration.between_starts),
        "covers": {
            name: {"low": _round(one.low), "high": _round(one.high)} for name, one in calibration.ranges.items()
        },
        "interval": LEVEL,
        "held_out": errors([row for row in found if row["role"] == HELD_OUT]),
        "left_out": list(left_out),
    }


def errors(found: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Return by quantity how many rows there are, their errors and the share inside the interval."""
    said: dict[str, dict[str, float]] = {}
    for name in FITTED:
        known = [row for row in found if row["quantity"] == name and math.isfinite(row["error_fraction"])]
        if known:
            sizes = sorted(abs(row["error_fraction"]) for row in known)
            said[name] = {
                "points": len(known),
                "median_error": _round(sizes[(len(sizes) - 1) // 2]),
                "p90_error": _round(sizes[math.ceil(0.9 * len(sizes)) - 1]),
                "inside_fraction": _round(sum(row["inside"] for row in known) / len(known)),
            }
    return said


def answer(name: str, said: Prediction) -> dict[str, Any]:
    """Return a prediction as one flat row: each value with its interval's ends."""
    found: dict[str, Any] = {"load": name}
    for quantity in QUANTITIES:
        if quantity in said.values:
            one = said.values[quantity]
            found |= {quantity: _round(one.value), f"{quantity}_low": _round(one.low)}
            found[f"{quantity}_high"] = _round(one.high)
    return found | {"extrapolates": "; ".join(said.extrapolates)}


def _round(value: float) -> float:
    return float(f"{value:.5g}")
