"""Who holds a lease: a process of a machine, told so that another machine can name it and this one can look for it."""

import json
import os
import secrets
import socket
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Holder:
    """A process that holds a lease. `since_utc` is for people to read: nothing is decided by it.

    `machine` names a boot of a kernel and its process namespace, "" where the system does not tell; `started` is the
    process's start in clock ticks since that boot, so that neither a process id that is used again nor a changed wall
    clock makes another process pass for it. `token` is this lease's own.
    """

    host: str
    machine: str
    pid: int
    started: int
    slurm_job: str
    since_utc: str
    token: str

    @classmethod
    def this_process(cls) -> "Holder":
        """Return this process as a holder with a token of its own."""
        pid = os.getpid()
        return cls(
            host=socket.gethostname(),
            machine=this_machine(),
            pid=pid,
            started=_started(pid) or 0,
            slurm_job=os.environ.get("SLURM_JOB_ID", ""),
            since_utc=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            token=secrets.token_hex(8),
        )

    @classmethod
    def from_text(cls, text: bytes) -> "Holder | None":
        """Return the holder that a lease file names; None for one that is being written or is damaged."""
        try:
            fields: dict[str, Any] = json.loads(text)
            return cls(**{name: kind(fields[name]) for name, kind in cls.__annotations__.items()})
        except (ValueError, KeyError, TypeError):
            return None

    def to_text(self, beat: int) -> bytes:
        """Return the lease file's content; as long for every beat, so that it can be written over in place."""
        return json.dumps({"beat": f"{beat:012d}", **asdict(self)}, sort_keys=True).encode() + b"\n"

    @property
    def runs(self) -> bool | None:
        """Whether the process runs; None where this machine cannot know."""
        if not self.machine or self.machine != this_machine():
            return None
        return _started(self.pid) == self.started

    def __str__(self) -> str:
        job = f", Slurm job {self.slurm_job}" if self.slurm_job else ""
        return f"process {self.pid} on {self.host}{job}, since {self.since_utc}"

    @property
    def how_to_stop(self) -> str:
        """The command that ends it."""
        return f"scancel {self.slurm_job}" if self.slurm_job else f"kill {self.pid} on {self.host}"


def this_machine() -> str:
    """Return the kernel's boot id and the process namespace, "" where the system has none (not Linux)."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return ""


def _started(pid: int) -> int | None:
    """Return a process's start in clock ticks since boot; None where it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *fields = text.rpartition(")")[2].split()
    return None if state in ("Z", "X") else int(fields[18])
