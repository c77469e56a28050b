"""What a server did while it started, told by when lines first came into its log."""

import re
from collections.abc import Mapping
from pathlib import Path

READY = "ready"
MOST_LINE_BYTES = 4096


class StartupPhases:
    """Follows a log while a server starts; `durations_s` has each phase that was seen, in order.

    `marks`: phase -> regular expression of the line that ends it, in the order of the phases. A phase lasts from the
    mark before it, or from the start, until its own mark; what was not seen is no phase, and its time is the next
    one's. The times are as fine as `look` is called often.
    """

    def __init__(self, log: Path, marks: Mapping[str, str]) -> None:
        self._log = log
        self._left = {phase: re.compile(pattern) for phase, pattern in marks.items()}
        self._offset, self._rest, self._last_s = 0, "", 0.0
        self.durations_s: dict[str, float] = {}

    def look(self, passed_s: float) -> None:
        """Read what is new in the log, `passed_s` after the start."""
        try:
            with self._log.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except OSError:
            return
        self._offset += len(data)
        text = self._rest + data.decode("utf-8", "replace")
        self._rest = text[text.rfind("\n") + 1 :][-MOST_LINE_BYTES:]
        for phase, pattern in list(self._left.items()):
            if pattern.search(text):
                self._end(phase, passed_s)

    def ready(self, passed_s: float) -> None:
        """Take the rest of the time as the last phase's."""
        self.look(passed_s)
        self._end(READY, passed_s)

    def _end(self, phase: str, passed_s: float) -> None:
        for name in list(self._left):
            del self._left[name]
            if name == phase:  # those before it were never seen
                break
        self.durations_s[phase] = passed_s - self._last_s
        self._last_s = passed_s
