"""Removes the lock that a killed Snakemake leaves, and only then."""

import shutil
from pathlib import Path

import psutil


def remove_stale_lock(directory: Path) -> bool:
    """Remove `directory`/.snakemake/locks where no Snakemake works in `directory`; returns whether there was one."""
    locks = directory / ".snakemake" / "locks"
    if not locks.is_dir() or not any(locks.iterdir()) or driver_in(directory) is not None:
        return False
    shutil.rmtree(locks)
    print("A killed run had left its lock; removed it. Finished points are kept.")
    return True


def driver_in(directory: Path) -> psutil.Process | None:
    """Return a running Snakemake whose working directory is `directory`, or None."""
    here = str(directory.resolve())
    for process in psutil.process_iter():
        try:
            named = any("snakemake" in part.rsplit("/", 1)[-1] for part in process.cmdline()[:3])
            if named and process.cwd() == here:
                return process
        except psutil.Error:
            continue
    return None
