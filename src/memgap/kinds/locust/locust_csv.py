"""Reads the CSV files that Locust writes, as they are."""

import csv
import io
import math
from pathlib import Path

REQUESTS, TTFT, AGGREGATED = "POST", "TTFT", ""
"""Types of Locust's entries: the requests, the first tokens that memgap's Locust file reports, and both together."""


def stats(folder: Path, kind: str) -> dict[str, float]:
    """Return the numbers of one entry of locust_stats.csv; empty where there is none."""
    for row in _rows(folder / "locust_stats.csv"):
        if row.get("Type") == kind:
            return _numbers(row)
    return {}


def history(folder: Path, kind: str, start_unix_s: float) -> list[dict[str, float]]:
    """Return the lines of one entry of locust_stats_history.csv, with `time_s` since the window's start."""
    found = []
    for row in _rows(folder / "locust_stats_history.csv"):
        numbers = _numbers(row)
        if row.get("Type") == kind and "Timestamp" in numbers:
            found.append({**numbers, "time_s": numbers["Timestamp"] - start_unix_s})
    return found


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    rows: list[dict[str, str]] = []
    reader = csv.DictReader(io.StringIO(text.replace("\0", ""), newline=""))
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return rows
        except csv.Error:
            continue
        if None not in row and None not in row.values():  # a line with other cells than the head is broken
            rows.append(row)


def _numbers(row: dict[str, str]) -> dict[str, float]:
    """Return the cells that are finite numbers ("N/A", text, NaN are left out)."""
    numbers = {}
    for name, cell in row.items():
        try:
            value = float(cell)
        except (TypeError, ValueError):
            continue
        if math.isfinite(value):
            numbers[name] = value
    return numbers
