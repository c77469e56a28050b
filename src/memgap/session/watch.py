"""When a session has to stop: a signal, or the death of the driver that started it."""

import asyncio
import signal
import threading
import time
from types import FrameType

import psutil

DRIVER_POLL_S = 0.5
SIGNALS_APART_S = 1.0
"""A session and its server that are told to end at once hear of it within this time."""


class StoppedError(Exception):
    """The session was told to stop; the point in flight is not recorded."""


class StopWatch:
    """Turns INT, TERM, HUP and the death of the driver into one flag that waiting code looks at.

    The driver is the nearest ancestor process that runs Snakemake; without one there is none to watch.
    """

    def __init__(self) -> None:
        self.reason = ""
        self._abort: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    def install(self) -> None:
        """Take over the signals and start to watch the driver."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        driver = find_driver()
        if driver is not None:
            threading.Thread(target=self._watch, args=(driver,), daemon=True).start()

    def check(self) -> None:
        """Raises StoppedError once the session has to stop."""
        if self.reason:
            raise StoppedError(self.reason)

    def check_after_a_death(self) -> None:
        """As `check`, for a server that died: a scheduler signals it and the session in no certain order."""
        if not self.reason:
            time.sleep(SIGNALS_APART_S)
        self.check()

    def attach(self, event: asyncio.Event) -> None:
        """Also set `event` of the running loop when the session has to stop."""
        self._abort = (asyncio.get_running_loop(), event)
        if self.reason:
            event.set()

    def detach(self) -> None:
        """Forget the event given to `attach`."""
        self._abort = None

    def stop(self, reason: str) -> None:
        """Set the flag; the first reason stays."""
        self.reason = self.reason or reason
        if self._abort is not None:
            loop, event = self._abort
            loop.call_soon_threadsafe(event.set)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.stop(f"signal {signal.Signals(number).name}")

    def _watch(self, driver: psutil.Process) -> None:
        while driver.is_running() and driver.status() != psutil.STATUS_ZOMBIE:
            time.sleep(DRIVER_POLL_S)
        self.stop("its driver (Snakemake) has ended")


def find_driver() -> psutil.Process | None:
    """Return the nearest ancestor that runs Snakemake, or None."""
    try:
        for process in psutil.Process().parents():
            if any("snakemake" in part.rsplit("/", 1)[-1] for part in process.cmdline()[:3]):
                return process
    except psutil.Error:
        return None
    return None
