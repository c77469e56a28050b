"""What processes run, also while they end."""

from pathlib import Path

import psutil


def arguments(process: psutil.Process) -> list[str]:
    """Return a process's command line, nothing for one that has ended."""
    try:
        found: list[str] = process.cmdline()
    except psutil.Error:
        return []
    return found


def belonging(folder: Path) -> list[psutil.Process]:
    """Return the processes that work for a folder, by their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("MEMGAP_TEST_FOLDER") == str(folder):
                found.append(process)
        except psutil.Error:
            continue
    return found


def left(folder: Path) -> list[str]:
    """Return the command lines of the processes that work for a folder."""
    lines = [" ".join(arguments(one)) for one in belonging(folder)]
    return [line for line in lines if line]
