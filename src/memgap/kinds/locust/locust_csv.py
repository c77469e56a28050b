"""Reads the CSV files that Locust writes, as they are."""

import csv
import io
import math
from pathlib import Path

REQUESTS, TTFT, AGGREGATED = "POST", "TTFT", ""
"""Types of Locust's entries: the requests, the first tokens that memgap's Locust file reports, and both together."""
TEXTS, UNKNOWN = ("Type", "Name"), ("N/A", "")


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


def left_out(folder: Path) -> int:
    """Return how many broken lines, and cells of the others that are no finite number, the files have.

    Locust itself writes "N/A" for what it does not know, which counts as said.
    """
    count = 0
    for name in ("locust_stats.csv", "locust_stats_history.csv"):
        rows, broken = _read(folder / name)
        told = [cell for row in rows for column, cell in row.items() if column not in TEXTS and cell not in UNKNOWN]
        count += broken + sum(_finite(cell) is None for cell in told)
    return count


def _rows(path: Path) -> list[dict[str, str]]:
    return _read(path)[0]


def _read(path: Path) -> tuple[list[dict[str, str]], int]:
    """Return a file's whole lines and how many are broken."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return [], 0
    rows: list[dict[str, str]] = []
    broken = 0
    reader = csv.DictReader(io.StringIO(text.replace("\0", ""), newline=""))
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return rows, broken
        except csv.Error:
            broken += 1
            continue
        if None in row or None in row.values():  # a line with other cells than the head
            broken += 1
        else:
            rows.append(row)


def _numbers(row: dict[str, str]) -> dict[str, float]:
    """Return the cells that are finite numbers."""
    return {name: value for name, cell in row.items() if (value := _finite(cell)) is not None}


def _finite(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
