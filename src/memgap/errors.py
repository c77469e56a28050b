"""The one exception whose text is meant for the user, and what damaged files raise before it is told."""

import zipfile
import zlib

DAMAGE = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, EOFError, OverflowError, RecursionError),
    *(zlib.error, zipfile.BadZipFile),
)
"""What reading a damaged file may raise: its bytes, its coding, its structure. Readers turn it into UserError."""

LONGEST = 1200
"""A message is cut to so many characters: it may quote what somebody else wrote."""


class UserError(Exception):
    """A mistake the user can mend.

    The message is one sentence that says what is wrong, where, and what would be right; it stays on one line, whatever
    it quotes. Entry points print it without a traceback and exit with status 2.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def one_line(message: str) -> str:
    """Return a message on one line, without what cannot be printed, and not too long."""
    text = message.encode("utf-8", "backslashreplace").decode()  # half a surrogate pair cannot be printed
    if not text.isprintable():
        text = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
    return text if len(text) <= LONGEST else f"{text[: LONGEST * 2 // 3]} ... {text[-LONGEST // 3 :]}"
