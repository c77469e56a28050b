"""Starts a mock engine as a process of its own; for tests and benchmarks."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from types import TracebackType
from typing import IO


def _error_file() -> IO[str]:
    return tempfile.TemporaryFile("w+")


class MockServer:
    """A running mock engine on a free port, stopped at the end of the `with` block.

    It leads a process group of its own, which is killed whole if it does not end within
    `patience_s` of SIGTERM.
    Raises RuntimeError with the engine's output where it does not start.
    """

    def __init__(self, *arguments: str, core: int | None = None, patience_s: float = 20.0) -> None:
        self.url = ""
        self.child_pid: int | None = None
        self._patience_s = patience_s
        self._errors = _error_file()
        command = [sys.executable, "-m", "memgap.mock_server", "--port", "0", "--model", "mock", *arguments]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self._errors, text=True, start_new_session=True
        )
        if core is not None:
            os.sched_setaffinity(self.process.pid, {core})
        lines = self._read_start()
        if not self.url:
            self.stop()
            reason = " ".join([*lines, self.errors])
            self._errors.close()
            raise RuntimeError(f"the mock engine did not start: {reason}")

    def _read_start(self) -> Sequence[str]:
        lines: list[str] = []
        assert self.process.stdout is not None
        for line in self.process.stdout:
            lines.append(line.strip())
            if "child process " in line:
                self.child_pid = int(line.rpartition(" ")[2])
            if "Listening on " in line:
                self.url = line.rpartition(" ")[2].strip()
            if "startup complete" in line:
                break
        return lines

    @property
    def errors(self) -> str:
        """What the engine has written to its standard error so far."""
        self._errors.seek(0)
        return self._errors.read()

    def stop(self) -> int:
        """End the engine with SIGTERM, or with SIGKILL after the patience; return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(self._patience_s)
        except subprocess.TimeoutExpired:
            self.kill()
        if self.process.stdout is not None:
            self.process.stdout.close()
        return self.process.wait()

    def kill(self) -> None:
        """Kill the engine's whole process group."""
        os.killpg(self.process.pid, signal.SIGKILL)

    def __enter__(self) -> "MockServer":
        """Return the running engine."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""
        self.stop()
        self._errors.close()
