"""A job in a fork of the warm server: made like a process of its own, run, and ended."""

import atexit
import contextlib
import importlib
import io
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn, TextIO, cast

from memgap.warm.client import die_by


@dataclass(frozen=True)
class Request:
    """What a client hands over: a module with `main`, its arguments, and what a process inherits.

    `descriptors` are those of standard input, output, error, and of the working directory.
    """

    module: str
    umask: int
    argv: list[str]
    environment: dict[str, str]
    descriptors: tuple[int, ...]

    @staticmethod
    def parse(text: bytes, descriptors: tuple[int, ...]) -> "Request":
        """Read the text of a request; raises ValueError where it is none."""
        module, umask, count, *rest = text.decode(errors="surrogateescape").split("\0")
        argv, environment = rest[: int(count)], rest[int(count) :]
        pairs = (line.partition("=") for line in environment)
        return Request(module, int(umask), argv, {name: value for name, _, value in pairs}, descriptors)

    def close(self) -> None:
        """Let go of the descriptors."""
        for descriptor in self.descriptors:
            os.close(descriptor)


def run_job(request: Request) -> NoReturn:
    """Run the job in this fork and end it as Python ends a script."""
    status = 1
    try:
        _become(request)
        status = _run(request)
    except KeyboardInterrupt:
        _told()
        die_by(signal.SIGINT)
    finally:
        os._exit(status & 0xFF)


def _become(request: Request) -> None:
    atexit._clear()  # what the server's modules left to do at their end is the server's
    os.setpgid(0, 0)
    for stream, descriptor in enumerate(request.descriptors[:3]):
        os.dup2(descriptor, stream)
    os.fchdir(request.descriptors[3])
    request.close()
    os.umask(request.umask)
    os.environ.clear()
    os.environ.update(request.environment)
    sys.argv = request.argv
    sys.path.insert(0, str(Path(request.argv[0]).absolute().parent))
    sys.modules["__main__"].__spec__ = None  # argparse names the program by it
    sys.stdin = _stream(0, "r", sys.stdin)
    sys.stdout = _stream(1, "w", sys.stdout)
    sys.stderr = _stream(2, "w", sys.stderr)


def _stream(number: int, mode: str, like: TextIO) -> TextIO:
    """Return a standard stream as Python opens it, with the encoding and the buffering of the server's own."""
    by_line, at_once = number == 2 or os.isatty(number), mode == "w" and getattr(like, "write_through", False)
    file = os.fdopen(number, mode + "b", 0 if at_once else -1, closefd=False)
    return io.TextIOWrapper(
        cast(BinaryIO, file), like.encoding, like.errors, line_buffering=by_line, write_through=at_once
    )


def _run(request: Request) -> int:
    """Return the exit status that `sys.exit(main(arguments))` has in a script."""
    try:
        status = importlib.import_module(request.module).main(request.argv[1:])
    except SystemExit as left:
        status = left.code
        if status is not None and not isinstance(status, int):
            print(status, file=sys.stderr)
            status = 1
    except KeyboardInterrupt:
        raise
    except BaseException:
        status = 1
        _told()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            status = 120  # as Python does where its output cannot be written
    return status or 0


def _told() -> None:
    with contextlib.suppress(BaseException):
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
