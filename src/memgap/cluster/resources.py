"""What a session asks of the scheduler: GPUs from its server's flags, and time that grows with every try."""

from collections.abc import Mapping
from typing import Any

from memgap.errors import UserError
from memgap.study.point import whole_flag

PARALLEL_FLAGS = ("tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size")
"""The GPUs of one server are the product of these; replicas share one set of GPUs."""


def parallel_gpus(record: Mapping[str, Any]) -> int:
    """Return how many GPUs the flags of a point's server spread it over; raises UserError for no whole number."""
    flags, gpus = record["server"]["args"], 1
    for flag in PARALLEL_FLAGS:
        size = whole_flag(flags, flag, 1, f"model {record['model']['name']}")
        if size < 1:
            raise UserError(f"model {record['model']['name']}: the server flag {flag} has to be 1 at least.")
        gpus *= size
    return gpus


def session_gpus(record: Mapping[str, Any], resources: Mapping[str, Any]) -> int:
    """Return the GPUs of a session: those its server is spread over, `resources.gpus` at least, 0 where that is 0."""
    asked = int(resources["gpus"])
    return max(asked, parallel_gpus(record)) if asked else 0


def session_runtime_min(resources: Mapping[str, Any], attempt: int) -> int:
    """Return the time limit in minutes of a try: as much again with each, never more than `max_runtime_min`."""
    wanted = attempt * int(resources["runtime_min"])
    most = resources["max_runtime_min"]
    return wanted if most is None else min(wanted, int(most))
