"""What processes run, also while they end."""

import psutil


def arguments(process: psutil.Process) -> list[str]:
    """Return a process's command line, nothing for one that has ended."""
    try:
        found: list[str] = process.cmdline()
    except psutil.Error:
        return []
    return found
