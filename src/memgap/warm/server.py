"""The warm server: waits for jobs, forks for each, tells how it ended, and ends with its driver or when idle.

`python -m memgap.warm.server DRIVER PACKAGE`, with the listening socket as standard input; the first client starts it.
"""

import contextlib
import gc
import importlib
import os
import selectors
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from memgap.warm.client import ENDED, EXITED, HEADER, KILLED, NOT_RUN, PACKAGE, TAKEN, peer_uid
from memgap.warm.job import Request, run_job

IDLE_S = 10.0
REQUEST_TIMEOUT_S = 5.0
MOST_REQUEST_BYTES = 1 << 24


@dataclass(frozen=True)
class Job:
    """A running fork: its process, a handle that tells its end, and the connection to who waits for it."""

    pid: int
    handle: int
    connection: socket.socket


class Server:
    """One thread that watches the listening socket, the driver, the connections and the forks."""

    def __init__(self, listener: socket.socket, driver: int) -> None:
        self._listener = listener
        self._driver = driver
        self._jobs: set[Job] = set()
        self._selector = selectors.DefaultSelector()
        self._selector.register(driver, selectors.EVENT_READ, self._end)
        self._selector.register(listener, selectors.EVENT_READ, self._accept)

    def serve(self) -> NoReturn:
        """Serve until the driver has ended, or nothing was asked for a while."""
        while True:
            events = self._selector.select(None if self._jobs else IDLE_S)
            if not events and not self._jobs:
                self._end()
            for key, _ in events:
                key.data()

    def _end(self) -> NoReturn:
        """End, and with it every job: nobody is there who would take its files."""
        for job in self._jobs:
            _kill(job, signal.SIGKILL)
        os._exit(0)

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        request = None
        with contextlib.suppress(OSError, ValueError, EOFError):
            if peer_uid(connection) == os.getuid():
                connection.settimeout(REQUEST_TIMEOUT_S)
                request = read_request(connection)
                connection.settimeout(None)
                connection.sendall(TAKEN)
        if request is None:
            connection.close()
            return
        _prepare(request.module)
        gc.freeze()
        if _threads() > 1 or not self._fork(connection, request):
            _tell(connection, NOT_RUN, 0)
            connection.close()
        request.close()

    def _fork(self, connection: socket.socket, request: Request) -> bool:
        """Start the job; returns whether it was started."""
        try:
            pid = os.fork()
        except OSError:
            return False
        if pid == 0:
            self._forget_all_but(connection)
            run_job(request)
        with contextlib.suppress(OSError):  # the fork does the same, whoever is first
            os.setpgid(pid, pid)
        job = Job(pid, os.pidfd_open(pid), connection)
        self._jobs.add(job)
        self._selector.register(job.handle, selectors.EVENT_READ, lambda: self._ended(job))
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._heard(job))
        return True

    def _forget_all_but(self, connection: socket.socket) -> None:
        """In the fork: let go of what is not the job's. Its own connection stays, and shows that the job still runs."""
        self._selector.close()
        self._listener.close()
        os.close(self._driver)
        for job in self._jobs:
            os.close(job.handle)
            job.connection.close()

    def _heard(self, job: Job) -> None:
        """Pass on a signal; a connection that is closed means that the client was killed."""
        if job not in self._jobs:  # it has ended in this round of events
            return
        try:
            told = job.connection.recv(1)
        except OSError:
            told = b""
        if told:
            _kill(job, told[0])
            return
        self._selector.unregister(job.connection)
        _kill(job, signal.SIGKILL)

    def _ended(self, job: Job) -> None:
        _, status = os.waitpid(job.pid, 0)
        if os.WIFSIGNALED(status):
            _tell(job.connection, KILLED, os.WTERMSIG(status))
        else:
            _tell(job.connection, EXITED, os.WEXITSTATUS(status))
        self._jobs.discard(job)
        for registered in (job.handle, job.connection):
            with contextlib.suppress(KeyError):
                self._selector.unregister(registered)
        os.close(job.handle)
        job.connection.close()


def read_request(connection: socket.socket) -> Request:
    """Return what a client hands over. Raises OSError, EOFError or ValueError where it is not whole."""
    head, descriptors, _, _ = socket.recv_fds(connection, HEADER.size, 4)
    try:
        if len(head) != HEADER.size or len(descriptors) != 4:
            raise ValueError("no request")
        (left,) = HEADER.unpack(head)
        if left > MOST_REQUEST_BYTES:
            raise ValueError("too long a request")
        parts = []
        while left:
            part = connection.recv(min(left, 1 << 16))
            if not part:
                raise EOFError
            parts.append(part)
            left -= len(part)
        return Request.parse(b"".join(parts), tuple(descriptors))
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise


def _prepare(name: str) -> None:
    """Import what the job needs, once for all jobs: its module, and what this preloads if it says so."""
    if name not in sys.modules:
        with contextlib.suppress(BaseException):  # the fork imports it again and tells what is wrong
            getattr(importlib.import_module(name), "preload", lambda: None)()


def _threads() -> int:
    return sum(1 for _ in Path("/proc/self/task").iterdir())


def _kill(job: Job, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(job.pid, number)


def _tell(connection: socket.socket, kind: bytes, number: int) -> None:
    with contextlib.suppress(OSError):
        connection.sendall(ENDED.pack(kind, number))


def main() -> NoReturn:
    """Serve on the socket that is standard input."""
    listener = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.closerange(listener.fileno() + 1, os.sysconf("SC_OPEN_MAX"))
    os.chdir("/")
    driver = os.pidfd_open(int(sys.argv[1]))
    if Path(sys.argv[2]) != PACKAGE:  # another memgap than the client's
        os._exit(1)
    Server(listener, driver).serve()


if __name__ == "__main__":
    main()
