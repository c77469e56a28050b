"""What a user sees while a session works: which point, how many are left, how long."""

import sys
import time
from typing import TextIO

LINE_EVERY_S = 10.0


def clock(seconds: float) -> str:
    """Return a duration as m:ss or h:mm:ss."""
    whole = max(0, round(seconds))
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


class Progress:
    """Lines on a stream (standard error): rewritten in place on a terminal, one every 10 s elsewhere."""

    def __init__(self, session: str, stream: TextIO = sys.stderr) -> None:
        self._session = session
        self._stream = stream
        self._open_line = False
        self._last_s = 0.0
        self._began_s = time.monotonic()

    def say(self, text: str) -> None:
        """Write one line."""
        self._close_line()
        print(f"[{self._session}] {text}", file=self._stream, flush=True)

    def update(self, text: str) -> None:
        """Show a passing state."""
        now_s = time.monotonic()
        if self._stream.isatty():
            if now_s - self._last_s >= 0.2:
                print(f"\r\x1b[K[{self._session}] {text}", end="", file=self._stream, flush=True)
                self._open_line, self._last_s = True, now_s
        elif now_s - self._last_s >= LINE_EVERY_S:
            self._last_s = now_s
            print(f"[{self._session}] {text}", file=self._stream, flush=True)

    def elapsed(self) -> str:
        """Return the time since the session began."""
        return clock(time.monotonic() - self._began_s)

    def _close_line(self) -> None:
        if self._open_line:
            print("\r\x1b[K", end="", file=self._stream)
            self._open_line = False
