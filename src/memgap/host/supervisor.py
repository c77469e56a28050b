"""Owns one server process, so that it never outlives its session, however the session ends.

`python -m memgap.host.supervisor --log FILE -- ARGV...` starts ARGV in a process group of its own, writes its output
to FILE, and prints one JSON line on start and one at the end. When standard input closes, which happens also when the
session is killed, the group gets INT, then TERM, then KILL. As a subreaper it adopts what the server's processes leave
behind, and ends that too.
"""

import argparse
import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

GRACE_S = {signal.SIGINT: 15.0, signal.SIGTERM: 5.0, signal.SIGKILL: 5.0}
PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """Make orphaned descendants children of this process (Linux; elsewhere nothing happens)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def supervise(argv: list[str], log: Path, scratch: Path | None = None) -> int:
    """Run ARGV until it ends or standard input closes; returns its exit status (negative: a signal).

    In the second case the folder `scratch` goes as well; else the session may still want to read it.
    """
    closed = False
    become_subreaper()
    with log.open("ab") as output:
        try:
            server = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, process_group=0)
        except OSError as error:
            output.write(f"{argv[0]}: {error.strerror}\n".encode())
            return 127
    _say(event="started", pid=server.pid)
    os.set_blocking(0, False)
    while server.poll() is None:
        if select.select([sys.stdin], [], [], 0.2)[0] and not os.read(0, 4096):
            closed = True
            break
    how = _stop_group(server)
    leftover = _end_descendants()
    if closed and scratch is not None:
        shutil.rmtree(scratch, ignore_errors=True)
    _say(event="ended", returncode=server.returncode, stopped_by=how, leftover=leftover)
    return server.returncode or 0


def _stop_group(server: subprocess.Popen[bytes]) -> str | None:
    """Escalate until the server is gone; returns the signal that did it, or None where it had ended by itself."""
    how = None
    for number, grace_s in GRACE_S.items():
        if server.poll() is not None:
            break
        how = number.name
        _signal_group(server.pid, number)
        deadline_s = time.monotonic() + grace_s
        while server.poll() is None and time.monotonic() < deadline_s:
            time.sleep(0.05)
    return how


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def _end_descendants() -> int:
    """End everything that the server left behind; returns how many processes that were."""
    left = psutil.Process().children(recursive=True)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs(left, timeout=5)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=5)
    return len(left)


def _say(**event: object) -> None:
    with contextlib.suppress(OSError):
        print(json.dumps(event), flush=True)


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and supervise."""
    parser = argparse.ArgumentParser(description="Run a server that ends when standard input closes.")
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, help="a folder of the server's that goes with it")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args(argv)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)  # a handler, since "ignore" would be inherited by the server
    return supervise(options.command, options.log, options.scratch)


if __name__ == "__main__":
    sys.exit(main())
