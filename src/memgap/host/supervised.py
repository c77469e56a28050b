"""A process under `memgap.host.supervisor`, seen from the session: it ends with the session, whatever happens."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from memgap.engine.failure import ServerFailureError
from memgap.host.caches import with_caches
from memgap.loopback import without_proxy
from memgap.redact import redact

STOP_TIMEOUT_S = 60.0


class Supervised:
    """One program, running from construction on, with its output in `log` and `env` added to its environment.

    The folder `scratch` is removed when it has ended, also when the session was killed.
    Raises ServerFailureError ("bad_config") where it cannot be run at all.
    """

    def __init__(self, argv: Sequence[str], log: Path, env: Mapping[str, str], scratch: Path | None = None) -> None:
        self._scratch = scratch
        self._program: psutil.Process | None = None
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")
        self._supervisor: subprocess.Popen[bytes] | None = subprocess.Popen(
            [
                *(sys.executable, "-m", "memgap.host.supervisor", "--log", str(log)),
                *(("--scratch", str(scratch)) if scratch is not None else ()),
                *("--", *argv),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,
            env=with_caches(without_proxy({**_clean_environment(), **env})),
        )
        assert self._supervisor.stdout is not None
        line = self._supervisor.stdout.readline()
        if not line:
            self.stop()
            tail = redact(log.read_text(encoding="utf-8", errors="replace"))
            raise ServerFailureError("bad_config", f"the server's command cannot be run: {argv[0]}", tail)
        self.pid = int(json.loads(line)["pid"])
        self._program = _process(self.pid)

    @property
    def alive(self) -> bool:
        """Whether the program runs."""
        if self._supervisor is None or self._supervisor.poll() is not None:
            return False
        try:
            return psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False

    def wait(self, timeout_s: float) -> None:
        """Return when the program has ended by itself, or after `timeout_s`."""
        if self._supervisor is not None:
            try:
                self._supervisor.wait(timeout=timeout_s)
            except subprocess.TimeoutExpired:
                return

    def stop(self) -> None:
        """Stop the program and everything it started; returns when nothing of it is left."""
        if self._supervisor is None:
            return
        assert self._supervisor.stdin is not None and self._supervisor.stdout is not None
        self._supervisor.stdin.close()
        try:
            self._supervisor.wait(timeout=STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._supervisor.kill()
            self._supervisor.wait()
        self._supervisor.stdout.close()
        self._supervisor = None
        self._end_what_lost_its_supervisor()
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _end_what_lost_its_supervisor(self) -> None:
        """Kill the program and its children where the supervisor was killed and could not do it."""
        if self._program is None:
            return
        with contextlib.suppress(psutil.Error):
            left = [self._program, *self._program.children(recursive=True)]
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(left, timeout=STOP_TIMEOUT_S)


def _process(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except psutil.Error:
        return None


def _clean_environment() -> dict[str, str]:
    """Return this process's environment without what belongs to its own virtual environment."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONHOME", "VIRTUAL_ENV")}
