"""The way in for scripts: run a job in the warm server of this Snakemake run, or else in this process.

It is the start of every light job, so it imports little.
"""

import contextlib
import hashlib
import importlib
import os
import signal
import socket
import struct
import sys
import time
from pathlib import Path

from memgap.warm.driver import OFF, VARIABLE, driver_pid

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PER_JOB = frozenset({"_", "SHLVL", "PWD", "OLDPWD"})
"""Variables that may differ between jobs of one server: the shell's own."""
PACKAGE = Path(__file__).resolve().parents[1]
TAKEN, NOT_RUN, EXITED, KILLED = b"t", b"n", b"e", b"k"
"""What a server answers: first `TAKEN`, then how the job ended (with a number) or that it was not run after all."""
HEADER = struct.Struct("=Q")
ENDED = struct.Struct("=ci")
BACKLOG = 128
LAUNCH_TRIES, LAUNCH_PAUSE_S = 100, 0.01
ANSWER_TIMEOUT_S = 60.0
"""A server that takes a job later than this hangs."""


class _NotWarmError(Exception):
    """The job has to run in this process; nothing of it was run so far."""


def start(module: str) -> int:
    """Run `main(arguments)` of a module with this process's arguments; returns the exit status."""
    try:
        return _run_warm(module)
    except (_NotWarmError, OSError):
        return int(importlib.import_module(module).main(sys.argv[1:]))


def _run_warm(module: str) -> int:
    """Have a server run the job. Raises _NotWarmError or OSError where nothing of it was run."""
    driver = driver_pid(os.environ)
    if driver is None:
        raise _NotWarmError
    for stream in (0, 1, 2):
        os.fstat(stream)
    with _connected(driver) as connection:
        _send(connection, module)
        kind, number = _ended(connection)
    if kind == NOT_RUN:
        raise _NotWarmError
    if kind == KILLED:
        die_by(number)
    return number


def _connected(driver: int) -> socket.socket:
    """Return a connection to the server of this driver, interpreter, environment and code; the first job starts it."""
    name = _address()
    for _ in range(LAUNCH_TRIES):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            if not _reached(connection, name) and not _launched(connection, name, driver):
                connection.close()
                time.sleep(LAUNCH_PAUSE_S)  # another job was first and will listen in a moment
                continue
            if peer_uid(connection) != os.getuid():
                raise _NotWarmError
        except BaseException:
            connection.close()
            raise
        return connection
    raise _NotWarmError


def _reached(connection: socket.socket, name: bytes) -> bool:
    try:
        connection.connect(name)
    except ConnectionRefusedError:
        return False
    return True


def _launched(connection: socket.socket, name: bytes, driver: int) -> bool:
    """Listen at the address, start the server that takes this over, and connect; returns False where another job did.

    The address is an abstract one: one process has it, no folder is needed, and nothing of it stays.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        try:
            listener.bind(name)
        except OSError:
            return False
        listener.listen(BACKLOG)
        _spawn(listener, driver)
        connection.connect(name)
    return True


def _address() -> bytes:
    told = [os.environ[VARIABLE], sys.executable, sys.version, *_environment(), *_code(PACKAGE)]
    return b"\0memgap-" + hashlib.sha256("\0".join(told).encode(errors="surrogateescape")).hexdigest().encode()


def _environment() -> list[str]:
    return sorted(f"{name}={value}" for name, value in os.environ.items() if name not in PER_JOB)


def _code(folder: Path) -> list[str]:
    """Return a line for each file of the package, other than before once the file has changed."""
    lines, folders = [], [str(folder)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if entry.name != "__pycache__":
                        folders.append(entry.path)
                else:
                    about = entry.stat()
                    lines.append(f"{entry.path} {about.st_mtime_ns} {about.st_size}")
    return sorted(lines)


def _spawn(listener: socket.socket, driver: int) -> None:
    """Start a server that takes over the listening socket; it is no child of the job's session and has no terminal."""
    null = os.open(os.devnull, os.O_RDWR)
    try:
        os.posix_spawn(
            sys.executable,
            [sys.executable, "-P", "-m", "memgap.warm.server", str(driver), str(PACKAGE)],
            # Arrow's other allocator would start a thread, and a fork takes no threads along
            {**os.environ, "JE_ARROW_MALLOC_CONF": "background_thread:false"},
            file_actions=[
                *((os.POSIX_SPAWN_DUP2, null, number) for number in (1, 2)),
                (os.POSIX_SPAWN_DUP2, listener.fileno(), 0),
            ],
            setsid=True,
        )
    finally:
        os.close(null)


def peer_uid(connection: socket.socket) -> int:
    """Return the user of the process at the other end, as the kernel knows it."""
    _, uid, _ = struct.unpack("=iII", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(uid)


def _send(connection: socket.socket, module: str) -> None:
    """Hand over the job, and from then on the signals that this process gets."""

    def forward(number: int, frame: object) -> None:
        connection.send(bytes([number]))

    umask = os.umask(0o077)
    os.umask(umask)
    environment = [f"{name}={value}" for name, value in os.environ.items()]
    parts = [module, str(umask), str(len(sys.argv)), *sys.argv, *environment]
    request = "\0".join(parts).encode(errors="surrogateescape")
    folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    connection.settimeout(ANSWER_TIMEOUT_S)
    try:
        socket.send_fds(connection, [HEADER.pack(len(request))], [0, 1, 2, folder])
        connection.sendall(request)
        if connection.recv(1) != TAKEN:
            raise _NotWarmError
    finally:
        os.close(folder)
    connection.settimeout(None)
    for number in FORWARDED:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, forward)


def _ended(connection: socket.socket) -> tuple[bytes, int]:
    """Wait for the end of the job; returns how it came, and the exit status or the signal."""
    told = b""
    with contextlib.suppress(OSError):
        while len(told) < ENDED.size and (more := connection.recv(ENDED.size - len(told))):
            told += more
    if len(told) == ENDED.size:
        return ENDED.unpack(told)
    print(f"memgap: the warm process died; run again, or with {VARIABLE}={OFF} without one.", file=sys.stderr)
    return EXITED, 1


def die_by(number: int) -> None:
    """End this process by a signal, as if nothing had caught it."""
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
