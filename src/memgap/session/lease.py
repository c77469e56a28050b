"""Leases, so that a session and each of its points are measured by one process at a time, on whatever machine.

They are files, since sessions of a cluster share a folder and little else, and file locks do not reach across every
shared file system. A lease NAME is the file NAME.N.lease, and the largest N is in force. The holder counts a number in
it up, every BEAT_S. Who wants the lease takes it where there is none, where the holder ran on this very machine and has
ended, or where the file has not changed while it was watched for STILL_S: by the watcher's own clock, which nobody can
set, so that clocks of two machines are never compared. It is taken by creating N + 1, which one process alone can do.
A holder that was suspended for longer finds the larger number, stops, and stores nothing.
"""

import contextlib
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from memgap.errors import UserError
from memgap.session.holder import Holder
from memgap.session.watch import StoppedError

BEAT_S = 5.0
STILL_S = 60.0
POLL_S = 0.5
SETTLE_S = 1.0
"""Two that find no lease at the same moment see each other, and both give way within this time."""


class Leases:
    """The leases of this process in one folder, as a context manager; one thread keeps them all alive.

    `on_lost` is called from that thread, with a reason, where a lease was taken over; `tell` before a wait.
    """

    def __init__(
        self,
        folder: Path,
        on_lost: Callable[[str], None] = lambda reason: None,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._folder = folder
        self._on_lost = on_lost
        self._tell = tell
        self._held: dict[str, _Held] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> "Leases":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()
        for name in list(self._held):
            self._release(name)

    @contextmanager
    def hold(self, name: str, wait_s: float, check: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold the lease `name` ("session X", "point X").

        While another holds it, `check` is called, which may raise. Raises UserError where that takes longer than
        `wait_s`, and OSError where the folder cannot be written.
        """
        self._held[name] = self._acquire(name, wait_s, check)
        try:
            yield
        finally:
            self._release(name)

    def is_busy(self, name: str) -> bool:
        """Whether another process seems to hold the lease."""
        found = _lease_files(self._folder, _file_name(name))
        if not found or name in self._held:
            return False
        holder = Holder.from_text(found[max(found)])
        return holder is None or holder.runs is not False

    def require(self, name: str) -> None:
        """Raises StoppedError where the lease is no longer this process's."""
        if self._held[name].lost():
            raise StoppedError(self._reason(name))

    def _reason(self, name: str) -> str:
        found = _lease_files(self._folder, _file_name(name))
        holder = Holder.from_text(found[max(found)]) if found else None
        return f"{name} was taken over by {holder}" if holder else f"the lease of {name} is gone from {self._folder}"

    def _acquire(self, name: str, wait_s: float, check: Callable[[], None]) -> "_Held":
        self._folder.mkdir(parents=True, exist_ok=True)
        file_name, still, told = _file_name(name), _Stillness(), False
        deadline_s = time.monotonic() + wait_s
        while True:
            found = _lease_files(self._folder, file_name)
            number = max(found, default=0)
            holder = Holder.from_text(found.get(number, b""))
            runs = holder.runs if holder is not None else None
            if not found or runs is False or (runs is None and still.seen(number, found[number]) >= STILL_S):
                held = _Held.create(self._folder, file_name, found)
                if held is not None:
                    return held
                time.sleep(random.uniform(0.0, SETTLE_S / 4))
            else:
                who = str(holder) if holder is not None else "an unknown process"
                if time.monotonic() > deadline_s:
                    how = f" ({holder.how_to_stop})" if holder is not None else ""
                    raise UserError(f"{name} is being measured by {who}; wait for it, or stop it{how}, then run again.")
                if not told:
                    self._tell(f"{name} is being measured by {who}; waiting for at most {wait_s:.0f} s")
                    told = True
                time.sleep(POLL_S)
            check()

    def _release(self, name: str) -> None:
        held = self._held.pop(name, None)
        if held is not None:
            with contextlib.suppress(OSError):
                held.release()

    def _beat(self) -> None:
        while not self._end.wait(BEAT_S):
            for name, held in list(self._held.items()):
                try:
                    held.beat()
                    if held.lost() and self._held.get(name) is held:
                        self._on_lost(self._reason(name))
                except OSError:
                    continue  # a full disk, a file server that is away: seen by the next beat, or by who takes over


class _Stillness:
    """For how long, in seconds, a lease has been seen not to change; a pause of the watcher itself does not count."""

    def __init__(self) -> None:
        self._seen: tuple[int, bytes] = (0, b"")
        self._still_s = 0.0
        self._last_s = 0.0

    def seen(self, number: int, content: bytes) -> float:
        now_s = time.monotonic()
        if (number, content) != self._seen:
            self._seen, self._still_s = (number, content), 0.0
        else:
            self._still_s += min(now_s - self._last_s, 2 * POLL_S)
        self._last_s = now_s
        return self._still_s


class _Held:
    """A lease file that this process created."""

    def __init__(self, folder: Path, name: str, number: int) -> None:
        self._folder, self._name, self._number = folder, name, number
        self._holder = Holder.this_process()
        self._beats = 0
        self._path = _path(folder, name, number)

    @classmethod
    def create(cls, folder: Path, name: str, over: dict[int, bytes]) -> "_Held | None":
        """Create the lease in place of the files `over`; None where another was faster."""
        held = cls(folder, name, max(over, default=0) + 1)
        try:
            handle = os.open(held._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return None
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(held._holder.to_text(0))
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            held._path.unlink(missing_ok=True)
            raise
        # of two that create, the later one to look sees the other: whatever is here and was not judged to be over
        others = {number: text for number, text in _lease_files(folder, name).items() if number != held._number}
        if any(over.get(number) != text for number, text in others.items()):
            held._path.unlink(missing_ok=True)
            return None
        for number in others:
            _path(folder, name, number).unlink(missing_ok=True)
        return held

    def beat(self) -> None:
        """Show that the holder lives; raises OSError where the file cannot be written."""
        self._beats += 1
        with contextlib.suppress(FileNotFoundError), self._path.open("r+b") as file:
            if self._is_own(file.read()):
                file.seek(0)
                file.write(self._holder.to_text(self._beats))

    def lost(self) -> bool:
        """Whether the lease is another's, or gone; one that gives way at once does not count."""
        if not self._lost():
            return False
        time.sleep(SETTLE_S)
        return self._lost()

    def _lost(self) -> bool:
        found = _lease_files(self._folder, self._name)
        return max(found, default=0) != self._number or not self._is_own(found[self._number])

    def release(self) -> None:
        """Remove the file where it is still this process's."""
        if self._is_own(_lease_files(self._folder, self._name).get(self._number, b"")):
            self._path.unlink(missing_ok=True)

    def _is_own(self, text: bytes) -> bool:
        holder = Holder.from_text(text)
        return holder is not None and holder.token == self._holder.token


def _file_name(name: str) -> str:
    return name.replace(" ", "-")


def _path(folder: Path, name: str, number: int) -> Path:
    return folder / f"{name}.{number}.lease"


def _lease_files(folder: Path, name: str) -> dict[int, bytes]:
    """Return the content of each file of a lease by its number."""
    found = {}
    with contextlib.suppress(FileNotFoundError):
        for path in folder.iterdir():
            stem, _, number = path.name.removesuffix(".lease").rpartition(".")
            if path.name.endswith(".lease") and stem == name and number.isdigit():
                with contextlib.suppress(FileNotFoundError):
                    found[int(number)] = path.read_bytes()
    return found
