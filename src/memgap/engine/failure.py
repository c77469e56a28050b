"""What a server's failure is for the points that needed it."""

import re
from collections.abc import Mapping

TRACEBACK = "Traceback (most recent call last):"
MOST_CHARACTERS = 240
_FLAG = re.compile(r"^\S[^:\n]*: error: ((?:unrecognized arguments|argument|ambiguous option)\b.*)$", re.MULTILINE)
_ERROR = re.compile(r"(?:^|\s)((?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception)): (\S.*)$")


class ServerFailureError(Exception):
    """The server did not become ready, or died. `kind` is what a point records; `log_tail` the end of its log;
    `hopeless`: another try on this machine would end the same way.
    """

    def __init__(self, kind: str, message: str, log_tail: str, hopeless: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        self.log_tail = log_tail
        self.hopeless = hopeless


def kind_in(log: str, kinds: Mapping[str, re.Pattern[str]]) -> str | None:
    """Return the first kind of failure whose pattern a log has, None where it has none."""
    return next((kind for kind, pattern in kinds.items() if pattern.search(log)), None)


def first_error(log: str) -> str:
    """Return the error that the first traceback of a log ends with, such as "ValueError: no", or what a program says of
    a flag that it does not take; empty without either.

    An engine of several processes fails several times, the last ones for want of the first.
    """
    before, found, after = log.partition(TRACEBACK)
    if refused := _FLAG.search(before):
        return _cut(refused[1])
    if found:
        for line in after.splitlines():
            if match := _ERROR.search(line):
                return _cut(f"{match[1]}: {match[2].strip()}")
    return ""


def _cut(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 3]}..."
