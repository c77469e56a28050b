"""What a session asks of the scheduler: GPUs from its server's flags, and time that grows with every try."""

from collections.abc import Mapping
from typing import Any

from memgap.engine.given import GivenFlags


def session_gpus(record: Mapping[str, Any], resources: Mapping[str, Any]) -> int:
    """Return the GPUs of a session: those its server is spread over, `resources.gpus` at least, 0 where that is 0."""
    asked = int(resources["gpus"])
    return max(asked, GivenFlags.of(record).gpus) if asked else 0


def session_runtime_min(resources: Mapping[str, Any], attempt: int) -> int:
    """Return the time limit in minutes of a try: as much again with each, never more than `max_runtime_min`."""
    wanted = attempt * int(resources["runtime_min"])
    most = resources["max_runtime_min"]
    return wanted if most is None else min(wanted, int(most))
