"""Lengths of prompts and outputs, in tokens."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from memgap.errors import UserError

_POOL = 16
"""Pairs of lengths drawn for each one that is wanted: rejection uses the rest."""
_ROUNDS = 400
_CLOSE_ENOUGH = 0.002
_TOLERANCE = 0.02
_TOLERANCE_REQUESTS = 500


@dataclass(frozen=True)
class Lengths:
    """Tokens of each prompt and of each output; both of shape (requests,), int64."""

    prompt: npt.NDArray[np.int64]
    output: npt.NDArray[np.int64]


def random_lengths(spec: Mapping[str, Any], stream: np.random.RandomState) -> Lengths:
    """Return lengths drawn evenly from the two ranges, ends included, or the choices of a `random` dataset."""

    def draw(limits: Mapping[str, Any]) -> npt.NDArray[np.int64]:
        choices = limits.get("choices")
        low, high = (0, len(choices)) if choices else (limits["min"], limits["max"] + 1)
        drawn: npt.NDArray[np.int64] = stream.randint(low, high, size=spec["requests"], dtype=np.int64)
        return np.array(choices, dtype=np.int64)[drawn] if choices else drawn

    return Lengths(draw(spec["prompt_tokens"]), draw(spec["output_tokens"]))


def sharegpt_like_lengths(spec: Mapping[str, Any], stream: np.random.RandomState) -> Lengths:
    """Return log-normal lengths that keep within the limits of `spec` and have the means it asks for.

    Pairs outside the limits are dropped, as the serving benchmarks drop conversations; that shifts the means.
    The two location parameters are therefore fitted to the draw at hand, so that the means of the lengths
    returned, not of the distribution, are those asked for: within 2 % from 500 requests on, and in proportion
    to 1 / sqrt(requests) below. Raises UserError where the limits leave no room for such means.
    """
    wanted = spec["requests"]
    targets = np.array([spec["mean_prompt_tokens"], spec["mean_output_tokens"]])
    sigmas = np.array([spec["sigma_prompt"], spec["sigma_output"]])
    draw = stream.standard_normal((max(_POOL * wanted, 4096), 2)) * sigmas
    locations = np.log(targets) - sigmas**2 / 2
    best: npt.NDArray[np.int64] | None = None
    best_error = math.inf
    for _ in range(_ROUNDS):
        kept = _accepted(draw, locations, spec)[:wanted]
        if len(kept) < wanted:
            break
        deviation = np.log(kept.mean(axis=0) / targets)
        error = float(np.abs(deviation).max())
        if error < best_error:
            best, best_error = kept, error
        if error < _CLOSE_ENOUGH:
            break
        locations = locations - deviation
    tolerance = _TOLERANCE * max(1.0, math.sqrt(_TOLERANCE_REQUESTS / wanted))
    if best is None or best_error > tolerance:
        raise UserError(
            f"dataset {spec.get('name', spec['kind'])}: means of {targets[0]:g} prompt and "
            f"{targets[1]:g} output tokens cannot be met under max_prompt_tokens "
            f"{spec['max_prompt_tokens']} and max_total_tokens {spec['max_total_tokens']}; "
            "lower the means or the sigmas, or raise the limits"
        )
    return Lengths(best[:, 0], best[:, 1])


def _accepted(
    draw: npt.NDArray[np.float64], locations: npt.NDArray[np.float64], spec: Mapping[str, Any]
) -> npt.NDArray[np.int64]:
    pairs = np.rint(np.exp(np.minimum(draw + locations, 40.0)))
    prompt, output = pairs[:, 0], pairs[:, 1]
    inside = (
        (prompt >= spec["min_prompt_tokens"])
        & (prompt <= spec["max_prompt_tokens"])
        & (output >= spec["min_output_tokens"])
        & (prompt + output <= spec["max_total_tokens"])
    )
    accepted: npt.NDArray[np.int64] = pairs[inside].astype(np.int64)
    return accepted
