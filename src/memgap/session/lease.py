"""A lease on a session, so that two drivers never measure the same points at once."""

import fcntl
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from memgap.errors import UserError


class Lease:
    """An exclusive lock on a file, held while the context is open; the kernel frees it when the holder dies."""

    def __init__(self, path: Path, wait_s: float, check: Callable[[], None] = lambda: None) -> None:
        self._path = path
        self._wait_s = wait_s
        self._check = check

    def __enter__(self) -> "Lease":
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("a+", encoding="utf-8")
        deadline_s = time.monotonic() + self._wait_s
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() > deadline_s:
                    holder = self._path.read_text(encoding="utf-8").strip() or "an unknown process"
                    self._file.close()
                    raise UserError(
                        f"session {self._path.stem.lstrip('.')} is being measured by {holder}; wait for it or stop it."
                    ) from error
                self._check()
                time.sleep(0.5)
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        self._file.flush()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
