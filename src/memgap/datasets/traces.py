"""Request traces: when each request came and how long its prompt and answer were.

Three public layouts are read, told apart by their columns: BurstGPT (CSV: Timestamp in seconds, Request tokens,
Response tokens), Azure's LLM inference traces (CSV: TIMESTAMP as a date, ContextTokens, GeneratedTokens), and
Mooncake's (JSON lines: timestamp in ms, input_length, output_length, hash_ids, one id for each block of 512 prompt
tokens: equal ids mean equal blocks).
"""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from memgap.errors import DAMAGE, UserError

BLOCK_TOKENS = 512
"""Prompt tokens that one of Mooncake's hash ids stands for."""


@dataclass(frozen=True)
class TraceRow:
    """One request: its time in seconds on the trace's own clock, lengths in tokens, ids of shared prompt blocks."""

    time_s: float
    prompt_tokens: int
    output_tokens: int
    hash_ids: tuple[int, ...] = ()


def read_trace(spec: Mapping[str, Any]) -> list[TraceRow]:
    """Return the first `requests` usable rows of the trace in the order of time, times from 0 on and by `speed`.

    Rows without an answer and those longer than the limits of `spec` are left out. Raises UserError for a missing or
    garbled file, an unknown layout and too few rows.
    """
    path = Path(spec["path"])
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = sorted(_rows(file, path), key=lambda row: row.time_s)
    except OSError as error:
        raise UserError(f"the trace {path} cannot be read: {error.strerror}.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"the trace {path} is no text of a known layout ({error}).") from None
    fit = [
        row
        for row in rows
        if row.output_tokens >= 1
        and spec["min_prompt_tokens"] <= row.prompt_tokens <= spec["max_prompt_tokens"]
        and row.prompt_tokens + row.output_tokens <= spec["max_total_tokens"]
    ][: spec["requests"]]
    if len(fit) < spec["requests"]:
        raise UserError(
            f"the trace {path} has {len(fit)} usable rows of {len(rows)}, but {spec['requests']} requests are asked "
            "for; ask for fewer or raise the limits of lengths."
        )
    first_s, speed = fit[0].time_s, spec["speed"]
    return [TraceRow((one.time_s - first_s) / speed, one.prompt_tokens, one.output_tokens, one.hash_ids) for one in fit]


def _rows(file: Any, path: Path) -> Iterator[TraceRow]:
    start = file.read(1)
    file.seek(0)
    if start == "{":
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _mooncake(line, path, number)
        return
    reader = csv.DictReader(file)
    columns = set(reader.fieldnames or ())
    names = next((one for one in _LAYOUTS if set(one) <= columns), None)
    if names is None:
        known = "; ".join(", ".join(one) for one in _LAYOUTS)
        raise UserError(f"the trace {path} has no known columns; known are {known}, or Mooncake's JSON lines.")
    time, prompt, output = names
    for number, row in enumerate(reader, start=2):
        try:
            yield TraceRow(_seconds(row[time]), int(float(row[prompt])), int(float(row[output])))
        except (TypeError, ValueError, OverflowError):
            raise UserError(f"the trace {path}, line {number}: not a time and two lengths.") from None


_LAYOUTS = (
    ("Timestamp", "Request tokens", "Response tokens"),
    ("TIMESTAMP", "ContextTokens", "GeneratedTokens"),
    ("timestamp", "input_length", "output_length"),
)


def _mooncake(line: str, path: Path, number: int) -> TraceRow:
    try:
        row = json.loads(line)
        hash_ids = tuple(int(one) for one in row.get("hash_ids", ()))
        return TraceRow(float(row["timestamp"]) / 1e3, int(row["input_length"]), int(row["output_length"]), hash_ids)
    except DAMAGE:
        raise UserError(
            f"the trace {path}, line {number}: not a JSON object with timestamp, input_length and output_length."
        ) from None


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        # Azure writes seven digits of a second's fraction; datetime reads six.
        whole, _, fraction = text.strip().removesuffix("Z").partition(".")
        moment = datetime.fromisoformat(whole.partition("+")[0])
        digits = fraction.partition("+")[0]
        return (moment - datetime(1970, 1, 1)).total_seconds() + (float(f"0.{digits}") if digits else 0.0)
