"""What a side of a comparison has measured: rows that can be paired with another side's."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memgap.canonical import canonical_json
from memgap.errors import UserError
from memgap.recorded.files import all_points
from memgap.stats.averaging import chosen
from memgap.stats.paired import METRICS
from memgap.store.results import Results
from memgap.verdict.judge import OFFERED


@dataclass(frozen=True)
class Row:
    """One measurement of a side: `cell` says of what, alike on both sides, `label` the same in words, `block` which.

    `values` by metric; `refused` says why there are none. `settings` are the server's flags, `engine` its adapter.
    """

    cell: str
    label: str
    block: int
    engine: str
    settings: str
    machine: str
    harness: int
    values: Mapping[str, float]
    refused: str = ""


@dataclass(frozen=True)
class Side:
    """A side by its name, with all its rows."""

    name: str
    rows: Sequence[Row]


def read_side(name: str) -> Side:
    """Return the points of `FOLDER` or, of one engine of the configuration, of `FOLDER@ENGINE`.

    The folder is one of results, or a recorded study. Raises UserError where it has no such points.
    """
    path, _, engine = name.partition("@")
    folder = Path(path)
    points = list(_points(folder))
    if not points:
        raise UserError(f"{folder} has no points: name a folder of results or a recorded study.")
    known = sorted({point["record"]["engine"]["name"] for point in points})
    if engine and engine not in known:
        raise UserError(f"{folder} has no points of an engine {engine!r}; it has {', '.join(known)}.")
    return Side(name, [row_of(one) for one in points if engine in ("", one["record"]["engine"]["name"])])


def _points(folder: Path) -> Iterator[Mapping[str, Any]]:
    results = Results(folder)
    if results.points.is_dir():
        read = (results.store.read(key) for key in sorted(results.store.stored_keys()))
        yield from (point for point in read if point is not None)
    elif folder.is_dir():
        yield from all_points(folder)


def row_of(point: Mapping[str, Any]) -> Row:
    """Return the row of a stored point."""
    record, hardware = point["record"], point["hardware"]
    server = {name: one for name, one in record["server"].items() if name not in ("args", "env")}
    left = {name: one for name, one in record.items() if name not in ("engine", "server", "repeat", "harness")}
    return Row(
        canonical_json({**left, "server": server}),
        _label(record),
        record["repeat"],
        record["engine"]["adapter"],
        canonical_json([record["server"]["args"], record["server"].get("env", {})]),
        str(hardware.get("gpu_name") or hardware.get("cpu_model")),
        record["harness"],
        _values(point),
        _refused(point),
    )


def _label(record: Mapping[str, Any]) -> str:
    load, parts = record.get("load"), [record["model"]["name"]]
    if load is None:
        return ", ".join([*parts, f"batch {record['batch']}"])
    parts.append(record["dataset"]["name"])
    rate = load.get("rate_req_s")
    parts.append(f"{rate:g} req/s" if rate is not None else load["arrival"])
    return ", ".join([*parts, f"cap {record['batch_cap']}"])


def _values(point: Mapping[str, Any]) -> dict[str, float]:
    found = {name: one for name, one in chosen(point["summary"]).items() if name in METRICS and one > 0}
    if (point.get("verdict") or {}).get("limit") == OFFERED:
        found.pop("request_throughput_req_s", None)
    return found


def _refused(point: Mapping[str, Any]) -> str:
    if point["status"] != "ok":
        return f"{point['status']}: {(point.get('error') or {}).get('message', '')}".strip(": ")
    verdict = point.get("verdict") or {}
    if verdict.get("verdict") == "invalid":
        return "invalid: " + "; ".join(one["text"] for one in verdict["reasons"])
    return ""
