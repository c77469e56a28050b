"""The entries of a trace file, whatever it was saved by: CSV, JSON lines or one JSON array, gzipped or not.

Every entry is a mapping of plain column names (lower case, one underscore between words) to what stands there. A
spreadsheet's byte-order mark, blank lines, blanks around cells and other delimiters than the comma are no part of it.
"""

import csv
import gzip
import io
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from memgap.errors import DAMAGE, UserError

Entry = Mapping[str, Any]
DELIMITERS = (",", ";", "\t", "|")
PREAMBLE = ("#", "sep=")
"""What lines before a CSV file's header begin with: comments, and the delimiter that a spreadsheet is told."""
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_GZIP = b"\x1f\x8b"
_SEPARATORS = re.compile(r"[\s_()\[\]-]+")


class NotAnEntryError(ValueError):
    """A line of JSON that is no object."""


def plain_name(name: object) -> str:
    """Return a column's name as layouts are looked up by: `Request tokens ` is `request_tokens`."""
    return _SEPARATORS.sub("_", str(name).strip().casefold()).strip("_")


def trace_entries(path: Path, is_header: Callable[[set[str]], bool]) -> Iterator[tuple[int, Entry | None]]:
    """Yield (line, entry) of a trace, None in place of a line that is no entry at all.

    In a JSON array the number is that of the entry, from 1 on. `is_header` says whether plain column names are those of
    a known layout; it chooses a CSV file's delimiter. Raises UserError for what cannot be read or is no text.
    """
    try:
        with _opened(path) as file:
            yield from _entries(file, is_header)
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"the trace {path} cannot be read: {error.strerror}.") from None
    except csv.Error as error:
        raise UserError(f"the trace {path} is no text of a known layout ({error}).") from None
    except DAMAGE as error:
        why = getattr(error, "strerror", None)
        if isinstance(error, OSError) and why:
            raise UserError(f"the trace {path} cannot be read: {why}.") from None
        raise UserError(f"the trace {path} is no text of a known layout ({error}).") from None


def _opened(path: Path) -> TextIO:
    raw: Any = path.open("rb")
    try:
        if raw.peek(2)[:2] == _GZIP:
            raw = io.BufferedReader(gzip.GzipFile(fileobj=raw))
        if raw.peek(2)[:2] in _UTF16:
            return io.TextIOWrapper(raw, encoding="utf-16", newline="")
        # letters of another encoding stand in names, which are not read
        return io.TextIOWrapper(raw, encoding="utf-8-sig", errors="replace", newline="")
    except BaseException:
        raw.close()
        raise


def _entries(file: TextIO, is_header: Callable[[set[str]], bool]) -> Iterator[tuple[int, Entry | None]]:
    lines = enumerate(file, start=1)
    first = next(((number, line) for number, line in lines if line.strip()), None)
    if first is None:
        return
    start = first[1].lstrip()[0]
    rest = itertools.chain([first], lines)
    if start == "{":
        for number, line in rest:
            if line.strip():
                yield number, _object(line)
    elif start == "[":
        array = json.loads("".join(line for _, line in rest))
        for number, one in enumerate(array, start=1):
            yield number, _named(one) if isinstance(one, Mapping) else None
    else:
        yield from _csv(rest, is_header)


def _object(line: str) -> Entry | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return _named(found) if isinstance(found, Mapping) else None


def _named(found: Mapping[str, Any]) -> Entry:
    return {plain_name(name): value for name, value in found.items()}


def _csv(lines: Iterator[tuple[int, str]], is_header: Callable[[set[str]], bool]) -> Iterator[tuple[int, Entry | None]]:
    number, header = next((one for one in lines if not one[1].startswith(PREAMBLE)), (1, ""))
    delimiter = next((one for one in DELIMITERS if is_header(set(_header(header, one)))), DELIMITERS[0])
    names = _header(header, delimiter)
    if not is_header(set(names)):
        yield number, dict.fromkeys(names, "")
        return
    if twice := sorted({name for name in names if name and names.count(name) > 1}):
        raise UserError(f"the trace has two columns {twice[0]}; keep the one that is meant.")
    reader = csv.reader((line for _, line in lines), delimiter=delimiter, skipinitialspace=True)
    for cells in reader:
        if any(cell.strip() for cell in cells):
            at = number + reader.line_num
            yield at, {name: _cell(cell, delimiter) for name, cell in zip(names, cells, strict=False)}


def _header(line: str, delimiter: str) -> list[str]:
    return [plain_name(cell) for cell in next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])]


def _cell(text: str, delimiter: str) -> str:
    """Return a cell; where semicolons divide cells, a comma in a number divides its fraction."""
    plain = text.strip()
    return plain.replace(",", ".") if delimiter == ";" and re.fullmatch(r"-?\d+,\d+", plain) else plain
