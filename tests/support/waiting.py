"""Waiting for what another process or thread does, however slow the machine is."""

import time
from collections.abc import Callable

LAST_RESORT_S = 600.0
"""Nothing that a test waits for takes so long: then it never comes."""


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + LAST_RESORT_S
    while not condition():
        assert time.monotonic() < deadline, "the condition never came"
        time.sleep(0.02)
