"""Which process a warm server belongs to: the Snakemake that started the jobs."""

import os
import sys
from collections.abc import MutableMapping
from pathlib import Path

VARIABLE = "MEMGAP_WARM"
"""What jobs find in their environment: the identity of their driver, or `0` where no job shall be warm."""
OFF = "0"


def identity(pid: int) -> str:
    """Return a text that names the process and the place it is seen from, "" where that cannot be known.

    A process on another host, of an earlier boot, in a container, or one that got the same number later is another one.
    """
    if sys.platform != "linux" or not hasattr(os, "pidfd_open"):
        return ""
    try:
        # the command's name may hold spaces and brackets, so fields are counted from its end; the 22nd is the start
        started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        spaces = [str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in ("mnt", "pid", "net")]
    except (OSError, IndexError):
        return ""
    return " ".join([str(pid), started, boot, *spaces])


def claim(environment: MutableMapping[str, str]) -> None:
    """Make this process the driver of the jobs that get the environment, unless it says that none shall be warm."""
    if environment.get(VARIABLE) != OFF:
        environment[VARIABLE] = identity(os.getpid()) or OFF


def driver_pid(environment: MutableMapping[str, str]) -> int | None:
    """Return the number of the driver that the environment names, None where it is not there, or not seen from here."""
    named = environment.get(VARIABLE, OFF)
    pid = named.partition(" ")[0]
    if named == OFF or not pid.isdecimal() or identity(int(pid)) != named:
        return None
    return int(pid)
