"""The cores that this process may run on, which a job of a cluster or `taskset` makes fewer than the machine's."""

import os


def usable_cores() -> int:
    """Return how many cores this process may run on, 1 at least."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
