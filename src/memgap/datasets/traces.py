"""Request traces: when each request came and how long its prompt and answer were.

Layouts are told by their columns, whether the file is CSV, JSON lines or a JSON array: BurstGPT (Timestamp in seconds,
Request tokens, Response tokens), Azure's of 2023 to 2025 (TIMESTAMP as a date, ContextTokens, GeneratedTokens, and
NumImages, whose images are not sent), Mooncake's and Qwen-Bailian's (timestamp, input_length, output_length, hash_ids,
one id for each block of prompt tokens: equal ids mean equal blocks; and Qwen-Bailian's chat_id). The unit of the last
two and the size of their blocks follow from the rows: `memgap.datasets.trace_units`.
"""

import array
import heapq
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from memgap.datasets.trace_files import Entry, trace_entries
from memgap.datasets.trace_units import SECONDS, Blocks, Times, unit_of_time
from memgap.errors import UserError

UNREADABLE_FRACTION = 0.25
"""A file with a greater share of rows that are no times and lengths is refused."""


@dataclass(frozen=True, slots=True)
class TraceRow:
    """One request: its time in seconds on the trace's own clock, lengths in tokens, ids of shared prompt blocks."""

    time_s: float
    prompt_tokens: int
    output_tokens: int
    hash_ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Trace:
    """The rows that are replayed, tokens a block of their hash ids, and what has to be told of the file (`facts`)."""

    rows: list[TraceRow]
    block_tokens: int | None
    facts: dict[str, Any]


@dataclass(frozen=True)
class _Layout:
    """The plain names of a layout's columns, and the unit that its authors give; times may be named with a unit."""

    shown: str
    time: str
    prompt: tuple[str, ...]
    output: tuple[str, ...]
    unit: str | None = None

    def names(self, columns: set[str]) -> tuple[str, str, str] | None:
        """Return the columns of time, prompt and output, None where one of them is not there."""
        times = (self.time, *(f"{self.time}_{unit}" for unit in SECONDS))
        found = [next((one for one in names if one in columns), None) for names in (times, self.prompt, self.output)]
        time, prompt, output = found
        return None if time is None or prompt is None or output is None else (time, prompt, output)


_LAYOUTS = (
    _Layout("Timestamp, Request tokens, Response tokens", "timestamp", ("request_tokens",), ("response_tokens",), "s"),
    _Layout("TIMESTAMP, ContextTokens, GeneratedTokens", "timestamp", ("contexttokens",), ("generatedtokens",)),
    _Layout(
        "timestamp, input_length, output_length",
        "timestamp",
        ("input_length", "input_tokens"),
        ("output_length", "output_tokens"),
    ),
)
_CHATS = ("chat_id", "parent_chat_id")
"""Columns that Qwen-Bailian's traces have and Mooncake's have not; their times are seconds."""
_IMAGES = "numimages"


def read_trace(spec: Mapping[str, Any]) -> Trace:
    """Return the first `requests` usable rows of the trace in the order of time, times from 0 on and by `speed`.

    Left out, and counted in the facts, are rows that are no times and lengths, rows without an answer and those
    outside the limits of `spec`. Raises UserError for a missing or garbled file, an unknown layout, too few rows, and
    where the unit of time or the size of blocks cannot be known.
    """
    path = Path(spec["path"])
    file = _File(path, spec)
    chosen = heapq.nsmallest(spec["requests"], file.usable(), key=lambda row: row.time_s)
    file.check_readable()
    if len(chosen) < spec["requests"]:
        raise UserError(
            f"the trace {path} has {len(chosen)} usable rows of {file.rows}, but {spec['requests']} requests are asked "
            f"for; ask for fewer or raise the limits of lengths (left out: {_left_out(file.counts())})."
        )
    block_tokens, unfit = file.blocks.size(str(path))
    unit, known_by = unit_of_time(file.times(), block_tokens, str(path))
    first, scale = chosen[0].time_s, SECONDS[unit]
    facts = {
        **file.counts(),
        **file.window(first, chosen[-1].time_s, len(chosen), scale),
        "time_unit": unit,
        "time_unit_by": known_by,
        "block_tokens": block_tokens,
        "rows_with_other_blocks": unfit,
    }
    rows = [replace(one, time_s=(one.time_s - first) * scale / spec["speed"]) for one in chosen]
    return Trace(rows, block_tokens, facts)


def told(facts: Mapping[str, Any], path: str) -> str | None:
    """Return a sentence about the rows that were left out, None where the replayed time has all of its rows."""
    gone = facts["window_rows"] - facts["window_sent"]
    sentences = []
    if gone:
        sentence = f"the trace {path} is replayed without {gone} of the {facts['window_rows']} rows of that time"
        if facts["window_rate_req_s"]:
            sentence += (
                f", at {facts['window_sent_rate_req_s']:.3g} requests/s of the trace's "
                f"{facts['window_rate_req_s']:.3g} (before `speed`)"
            )
        sentences.append(f"{sentence}.")
    if gone or facts["rows_unreadable"]:
        sentences.append(f"Of all {facts['rows']} rows of {path} {_left_out(facts)} are left out.")
    if images := facts["rows_with_images"]:
        sentences.append(f"{images} rows of {path} have images, which are not sent: their tokens are.")
    return " ".join(sentences) or None


def _left_out(facts: Mapping[str, Any]) -> str:
    """Return how many rows were left out for which reason, as part of a sentence."""
    reasons = {
        "rows_outside_limits": "outside the limits of lengths",
        "rows_without_answer": "without an answer",
        "rows_unreadable": "that are no time and two lengths",
    }
    return ", ".join(f"{facts[name]} {words}" for name, words in reasons.items() if facts[name]) or "none"


class _File:
    """One pass over a file: gives its usable rows, and knows afterwards what else there was."""

    def __init__(self, path: Path, spec: Mapping[str, Any]) -> None:
        self._path, self._spec = path, spec
        self.rows = 0
        self.blocks = Blocks(spec.get("block_tokens"))
        self._times = array.array("d")
        self._unreadable = self._without_answer = self._outside = self._images = 0
        self._first_unreadable = ""
        self._dates: bool | None = None
        self._columns: set[str] = set()
        self._names: tuple[str, str, str] | None = None
        self._layout: _Layout | None = None

    def usable(self) -> Iterator[TraceRow]:
        """Yield the rows within the limits, times in the unit of the file."""
        spec = self._spec
        for number, entry in trace_entries(self._path, lambda columns: _layout_of(columns) is not None):
            self.rows += 1
            row = self._row(entry, number)
            if row is None:
                continue
            self._times.append(row.time_s)
            self.blocks.see(row.prompt_tokens, len(row.hash_ids))
            if row.output_tokens < 1:
                self._without_answer += 1
            elif (
                spec["min_prompt_tokens"] <= row.prompt_tokens <= spec["max_prompt_tokens"]
                and row.prompt_tokens + row.output_tokens <= spec["max_total_tokens"]
            ):
                yield row
            else:
                self._outside += 1

    def _row(self, entry: Entry | None, number: int) -> TraceRow | None:
        if entry is not None and self._names is None:
            self._columns, self._layout = set(entry), _layout_of(set(entry))
            self._names = self._layout.names(self._columns) if self._layout else None
        try:
            if entry is None or self._names is None:
                raise ValueError
            time, prompt, output = self._names
            row = TraceRow(
                self._time(entry[time]), _tokens(entry[prompt]), _tokens(entry[output]), _ids(entry.get("hash_ids"))
            )
            self._images += bool(_number(entry[_IMAGES])) if entry.get(_IMAGES) else False
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
            self._unreadable += 1
            self._first_unreadable = self._first_unreadable or f"line {number}"
            return None
        return row

    def _time(self, value: Any) -> float:
        """Return a time in the unit of the file; dates as seconds since 1970, those without a zone taken as UTC."""
        try:
            number, is_date = _number(value), False
        except ValueError:
            if not isinstance(value, str):
                raise
            moment = datetime.fromisoformat(value.strip().replace("/", "-"))
            number, is_date = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp(), True
        if self._dates is None:
            self._dates = is_date
        if self._dates != is_date:
            raise ValueError
        return number

    def check_readable(self) -> None:
        """Raise UserError where no row has known columns, and where too many are no times and lengths."""
        if self._columns and self._layout is None:
            known = "; ".join(one.shown for one in _LAYOUTS)
            raise UserError(
                f"the trace {self._path} has no known columns; known are {known}, in CSV, JSON lines or a JSON array."
            )
        if self._unreadable > UNREADABLE_FRACTION * self.rows:
            shown = self._layout.shown if self._layout else "JSON objects or CSV"
            raise UserError(
                f"the trace {self._path}, {self._first_unreadable}: not a time and two lengths ({shown}), "
                f"as are {self._unreadable} of its {self.rows} rows."
            )

    def times(self) -> Times:
        """Return what is known of the unit of time."""
        published = self._layout.unit if self._layout else None
        if self._layout is _LAYOUTS[-1] and all(one in self._columns for one in _CHATS):
            published = "s"
        named = self._names[0].rpartition("_")[2] if self._names else None
        return Times(
            rows=len(self._times),
            first=min(self._times),
            last=max(self._times),
            declared=self._spec.get("time_unit"),
            named=named if named in SECONDS else None,
            published=published,
            dates=bool(self._dates),
        )

    def counts(self) -> dict[str, int]:
        """Return how many rows there were, and how many were left out for which reason."""
        return {
            "rows": self.rows,
            "rows_unreadable": self._unreadable,
            "rows_without_answer": self._without_answer,
            "rows_outside_limits": self._outside,
            "rows_with_images": self._images,
        }

    def window(self, first: float, last: float, sent: int, scale: float) -> dict[str, Any]:
        """Return the rows and the rates, in requests/s of the trace's own clock, of the time that is replayed."""
        rows = sum(first <= one <= last for one in self._times)
        span_s = (last - first) * scale
        return {
            "window_rows": rows,
            "window_sent": sent,
            "window_s": span_s,
            "window_rate_req_s": (rows - 1) / span_s if span_s > 0 else None,
            "window_sent_rate_req_s": (sent - 1) / span_s if span_s > 0 else None,
        }


def _layout_of(columns: set[str]) -> _Layout | None:
    return next((one for one in _LAYOUTS if one.names(columns) is not None), None)


def _number(value: Any) -> float:
    """Return a finite number; raises ValueError or OverflowError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str) or (isinstance(value, str) and "_" in value):
        raise ValueError
    number = float(value)
    if not math.isfinite(number):
        raise ValueError
    return number


def _tokens(value: Any) -> int:
    number = _number(value)
    if number < 0 or not number.is_integer():
        raise ValueError
    return int(number)


def _ids(value: Any) -> tuple[int, ...]:
    """Return hash ids; in a CSV cell they are a JSON list."""
    if value is None or value == "":
        return ()
    found = json.loads(value) if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(one, int) and not isinstance(one, bool) for one in found):
        raise ValueError
    return tuple(found)
