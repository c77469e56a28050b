"""How long points that were not measured yet may take."""

import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from memgap.kinds.registry import kind_of
from memgap.stats.averaging import value

ASSUMED_START_S = 90.0
"""A server's start where none was measured: a cold vLLM on a GPU machine took 68 to 106 s."""
ASSUMED_TPOT_MS = 20.0
"""Time per output token where no point of the model was measured."""


def guessed_s(record: Mapping[str, Any], tpot_ms: Mapping[str, float]) -> float:
    """Return the seconds that a point may take; `tpot_ms` by model, see `tpot_by_model`."""
    return kind_of(record).work(record).lasts_s(tpot_ms.get(record["model"]["name"], ASSUMED_TPOT_MS) / 1000)


def tpot_by_model(measured: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return the mean time per output token in ms of each model in stored points."""
    values: dict[str, list[float]] = {}
    for point in measured:
        if (tpot := value(point.get("summary", {}), "tpot_mean_ms")) is not None:
            values.setdefault(point["record"]["model"]["name"], []).append(tpot)
    return {model: statistics.fmean(found) for model, found in values.items()}
