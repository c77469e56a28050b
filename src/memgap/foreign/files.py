"""Reads the files of other tools, whichever they are of, and keeps them beside a sweep for its table of points."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from memgap.canonical import content_key
from memgap.errors import DAMAGE, UserError
from memgap.foreign import aiperf, guidellm, inference_perf, sglang_bench, vllm_bench
from memgap.foreign.result import Foreign
from memgap.store.atomic import write_text

Reader = Callable[[Sequence[Any], Path], list[Foreign] | None]
READERS: Mapping[str, Reader] = {
    one.TOOL: one.read for one in (vllm_bench, guidellm, aiperf, sglang_bench, inference_perf)
}
SOURCE = "foreign"
"""The column `source` of such a row begins so, with the tool and its version behind it."""
NAMES = ("sweep", "experiment", "key", "model", "source", "status", "batch_cap", "rate_req_s", "requests", "date_utc")


def read_foreign(path: Path) -> list[Foreign]:
    """Return the runs that a file of another tool holds; raises UserError for a file of none of the known formats."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}).") from error
    try:
        documents = _documents(text)
        for read in READERS.values():
            if documents and (found := read(documents, path)) is not None:
                return found
    except DAMAGE as error:
        raise UserError(f"{path} is no whole result of another tool ({type(error).__name__}: {error}).") from error
    known = ", ".join(READERS)
    raise UserError(f"{path} is no result of a tool that is known here; known are {known}.")


def _documents(text: str) -> list[Any]:
    """Return the JSON documents of a text: one, or one a line."""
    try:
        return [json.loads(text)]
    except ValueError:
        return [json.loads(line) for line in text.splitlines() if line.strip()]


def rows_of(found: Sequence[Foreign], sweep: str) -> list[dict[str, Any]]:
    """Return runs as rows of the table of points of a sweep; what a tool does not give is absent."""
    return [
        {
            "sweep": sweep,
            "experiment": one.tool,
            "key": content_key({"tool": one.tool, "model": one.model, "values": dict(one.values)}),
            "model": one.label,
            "source": " ".join(filter(None, (f"{SOURCE}:", one.tool, one.version))),
            "status": one.status,
            "batch_cap": one.concurrency,
            "rate_req_s": one.rate_req_s,
            "requests": int(one.values["requests_sent"]) if "requests_sent" in one.values else None,
            "date_utc": one.date,
            **one.values,
        }
        for one in found
    ]


def kept_file(results: Path, sweep: str) -> Path:
    """Return where the rows of other tools beside a sweep are kept."""
    return results / "foreign" / f"{sweep}.csv"


def kept_rows(results: Path, sweep: str) -> list[dict[str, Any]]:
    """Return the rows that are kept beside a sweep, none where there are none; raises UserError for a damaged file."""
    path = kept_file(results, sweep)
    if not path.exists():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [_typed(row) for row in csv.DictReader(file)]
    except DAMAGE as error:
        raise UserError(f"{path} is damaged ({error}); remove it and import the files again.") from error


def _typed(row: dict[str, str]) -> dict[str, Any]:
    text = {"sweep", "experiment", "key", "model", "source", "status", "date_utc"}
    whole = {"batch_cap", "requests"}
    read = {name: value for name, value in row.items() if value}
    return {
        name: value if name in text else int(value) if name in whole else float(value) for name, value in read.items()
    }


def keep(results: Path, sweep: str, rows: Sequence[dict[str, Any]]) -> Path:
    """Keep rows beside a sweep, in place of those of the same key; returns the file."""
    new = {row["key"] for row in rows}
    together = [*(row for row in kept_rows(results, sweep) if row["key"] not in new), *rows]
    path = kept_file(results, sweep)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, as_csv(together))
    return path


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows as CSV with a column for whatever one of them has."""
    columns = list(dict.fromkeys([*NAMES, *(name for row in rows for name in row)]))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: "" if value is None else value for name, value in row.items()} for row in rows)
    return text.getvalue()
