"""What a race is about: one number of a point, per GPU where it is a rate, greater being better or worse."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from memgap.errors import UserError
from memgap.stats.averaging import STEADY, value


@dataclass(frozen=True)
class Objective:
    """`column` of a point's summary, divided by the GPUs where `per_gpu`; `more` whether more is better."""

    column: str
    label: str
    per_gpu: bool
    more: bool


OBJECTIVES: Mapping[str, Objective] = {
    "output_tps_per_gpu": Objective("output_throughput_tok_s", "output tok/s per GPU", True, True),
    "total_tps_per_gpu": Objective("total_throughput_tok_s", "prompt and output tok/s per GPU", True, True),
    "tpot_mean_ms": Objective("tpot_mean_ms", "mean time per output token", False, False),
    "ttft_mean_ms": Objective("ttft_mean_ms", "mean time to first token", False, False),
    "e2e_mean_ms": Objective("e2e_mean_ms", "mean end-to-end latency", False, False),
    "energy_per_output_token_j": Objective("energy_per_output_token_j", "energy per output token", False, False),
}


def log_value(name: str, point: Mapping[str, Any], gpus: int, averaging: str = STEADY) -> float:
    """Return the logarithm of a point's objective, turned so that greater is better.

    `averaging`: see `memgap.stats.averaging`. Raises UserError where the point has no such number.
    """
    objective = OBJECTIVES[name]
    measured = value(point["summary"], objective.column, averaging)
    if measured is None or measured <= 0:
        raise UserError(
            f"tuning: the objective {name} was not measured at point {point['key']}; "
            f"{'there is no GPU to read it from' if 'energy' in name else 'choose another one'}."
        )
    found = math.log(measured / gpus if objective.per_gpu else measured)
    return found if objective.more else -found
