"""Nsight Systems: its command lines, and its SQLite export as kernels, ranges and GPU metrics.

Tables after NVIDIA's documented export schema. Tables are made only where there is data, so an absent one means that
nothing was recorded; a table without a column that is needed means another schema.
"""

import math
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from memgap.errors import UserError
from memgap.profiling.classes import kernel_class
from memgap.profiling.timeline import Recording, StepFinder, timeline_table, windows_table

KERNELS = "CUPTI_ACTIVITY_KIND_KERNEL"
COPIES = {"CUPTI_ACTIVITY_KIND_MEMCPY": "Memcpy", "CUPTI_ACTIVITY_KIND_MEMSET": "Memset"}
RUNTIME = "CUPTI_ACTIVITY_KIND_RUNTIME"
MARK, PUSH_POP, START_END = 34, 59, 60
"""`eventType` in NVTX_EVENTS."""

COPY_KINDS = {1: "HtoD", 2: "DtoH", 8: "DtoD", 10: "PtoP"}
METRICS = {
    "SMs Active": "sm_active",
    "Compute Warps in Flight": "warps",
    "Tensor Active": "tensor",
    "DRAM Read Bandwidth": "dram_read",
    "DRAM Write Bandwidth": "dram_write",
}
"""GPU metrics by the begin of nsys's names; only those in `[Throughput %]` are read."""

GPU_COLUMNS = ("time_s", "gpu", "metric", "value_fraction")


def nsys_profile_command(
    command: Sequence[str],
    output: Path,
    *,
    gpu_metrics: bool = True,
    extra: Sequence[str] = (),
    program: str = "nsys",
) -> list[str]:
    """Return the arguments that run a command under nsys: CUDA and NVTX traced, kernels of CUDA graphs one by one, and
    with `gpu_metrics` the GPUs' counters sampled; `extra` are further arguments. The report is `output`, to which nsys
    adds `.nsys-rep`.
    """
    options = ["--trace", "cuda,nvtx", "--cuda-graph-trace", "node", "--sample", "none", "--cpuctxsw", "none"]
    if gpu_metrics:
        options += ["--gpu-metrics-devices", "all"]
    return [program, "profile", *options, "--force-overwrite", "true", "--output", str(output), *extra, *command]


def nsys_export_command(report: Path, database: Path, *, program: str = "nsys") -> list[str]:
    """Return the arguments that export a report (`.nsys-rep`) as an SQLite database."""
    return [program, "export", "--type", "sqlite", "--force-overwrite", "true", "--output", str(database), str(report)]


def read_nsys(path: Path) -> Recording:
    """Read kernels, copies and NVTX ranges of an SQLite export.

    Starts count from the first event of all. A kernel belongs to the step (`DecodeStep<i>`) inside which its launch
    lies; without recorded launches to the step inside which it begins itself. Events whose times are no numbers are
    left out and counted. Raises UserError for a file that is no such export, or without any kernel that can be read.
    """
    with _opened(path) as database:
        (kernels, odd_kernels), (ranges, odd_ranges) = _kernels(database, path), _ranges(database, path)
        launches = _launches(database, path)
    starts = [row["start"] for row in [*kernels, *ranges]]
    origin = min(starts, default=0)
    windows = windows_table(
        [
            {"name": row["name"], "start_s": (row["start"] - origin) / 1e9, "end_s": (row["end"] - origin) / 1e9}
            for row in ranges
        ]
    )
    finder = StepFinder(windows)
    rows: list[dict[str, object]] = []
    for row in kernels:
        launched = launches.get((row["process"], row["correlation"]), row["start"])
        phase, step = finder.at((launched - origin) / 1e9)
        rows.append(
            {
                "phase": phase,
                "step": step,
                "start_s": (row["start"] - origin) / 1e9,
                "duration_s": (row["end"] - row["start"]) / 1e9,
                "stream": row["stream"],
                "name": row["name"],
                "kernel_class": kernel_class(row["name"]),
                "source": "nsys",
            }
        )
    why = f"{path.name} has no kernels (no table {KERNELS}): nothing ran on a GPU while nsys traced CUDA"
    return Recording(timeline_table(rows), windows, "" if rows else why, odd_kernels + odd_ranges)


def read_gpu_metrics(path: Path) -> pd.DataFrame:
    """Return the GPU metrics of an SQLite export, one row a sample and metric: `time_s` on the clock of `read_nsys`,
    `gpu`, `metric` (`sm_active`, `warps`, `tensor`, `dram_read`, `dram_write`, `dram`: both), `value_fraction`. No
    rows where none were sampled. Raises UserError for a file that is no such export.
    """
    with _opened(path) as database:
        if not (_has(database, "GPU_METRICS") and _has(database, "TARGET_INFO_GPU_METRICS")):
            return pd.DataFrame(columns=list(GPU_COLUMNS))
        _need(database, path, "GPU_METRICS", ("timestamp", "typeId", "metricId", "value"))
        _need(database, path, "TARGET_INFO_GPU_METRICS", ("typeId", "metricId", "metricName"))
        (kernels, _), (ranges, _) = _kernels(database, path), _ranges(database, path)
        found = _query(
            database,
            path,
            "SELECT m.timestamp AS time, m.typeId AS type, i.metricName AS name, m.value AS value FROM GPU_METRICS m "
            "JOIN TARGET_INFO_GPU_METRICS i ON m.typeId = i.typeId AND m.metricId = i.metricId "
            "WHERE i.metricName LIKE '%[Throughput \\%]' ESCAPE '\\' ORDER BY m.timestamp",
        )
    found = [row for row in found if _is_sample(row)]
    starts = [row["start"] for row in [*kernels, *ranges]] or [row["time"] for row in found]
    origin = min(starts, default=0)
    rows = [
        {
            "time_s": (row["time"] - origin) / 1e9,
            "gpu": row["type"] & 0xFF,
            "metric": metric,
            "value_fraction": row["value"] / 100.0,
        }
        for row in found
        if (metric := _metric(row["name"]))
    ]
    table = pd.DataFrame(rows, columns=list(GPU_COLUMNS))
    if table.empty:
        return table
    both = table[table["metric"].isin(["dram_read", "dram_write"])]
    dram = both.groupby(["time_s", "gpu"], as_index=False)["value_fraction"].sum().assign(metric="dram")
    together = pd.concat([table, dram[list(GPU_COLUMNS)]], ignore_index=True)
    ordered: pd.DataFrame = together.sort_values("time_s", kind="stable", ignore_index=True)
    return ordered


def _is_sample(row: dict[str, Any]) -> bool:
    """Whether time, GPU and value of a metric's sample are finite numbers."""
    value = row["value"]
    whole = isinstance(row["time"], int) and isinstance(row["type"], int)
    return whole and isinstance(value, (int, float)) and math.isfinite(value)


def _metric(name: str) -> str:
    """Return our name of a metric of nsys's, empty for one that is not read."""
    return next((ours for begin, ours in METRICS.items() if str(name).startswith(begin)), "")


def _kernels(database: sqlite3.Connection, path: Path) -> tuple[list[dict[str, Any]], int]:
    """Return kernels, copies and memsets in ns: start, end, stream, process, correlation, name; and how many of them
    have no times."""
    found: list[dict[str, Any]] = []
    if _has(database, KERNELS):
        columns = _need(database, path, KERNELS, ("start", "end", "streamId"))
        name = "demangledName" if "demangledName" in columns else "shortName"
        _need(database, path, KERNELS, (name,))
        _need(database, path, "StringIds", ("id", "value"))
        shared = _shared(columns)
        found = _query(
            database,
            path,
            f"SELECT k.start AS start, k.end AS end, k.streamId AS stream, {shared}, s.value AS name "
            f"FROM {KERNELS} k LEFT JOIN StringIds s ON k.{name} = s.id",
        )
    own = list(found)
    for table, word in COPIES.items():
        if not _has(database, table):
            continue
        columns = _need(database, path, table, ("start", "end", "streamId"))
        kind = "k.copyKind" if "copyKind" in columns else "NULL"
        query = f"SELECT k.start AS start, k.end AS end, k.streamId AS stream, {_shared(columns)}, {kind} AS kind "
        for row in _query(database, path, f"{query} FROM {table} k"):
            said = COPY_KINDS.get(row.pop("kind"), "")
            found.append({**row, "name": f"{word} {said}".strip()})
    for row in found:
        row["name"] = str(row["name"] or "")
        row["stream"] = row["stream"] if isinstance(row["stream"], int) else None
    if own and not _timed(own)[0]:
        raise UserError(f"{path}: the kernels of the export have no times in nanoseconds; export the report again.")
    return _timed(found)


def _shared(columns: set[str]) -> str:
    """Return what to select for process and correlation, 0 where the schema has none."""
    process = "k.globalPid" if "globalPid" in columns else "0"
    correlation = "k.correlationId" if "correlationId" in columns else "NULL"
    return f"{process} AS process, {correlation} AS correlation"


def _launches(database: sqlite3.Connection, path: Path) -> dict[tuple[int, int], int]:
    """Return when (ns) each launch was called, by process and correlation."""
    if not _has(database, RUNTIME):
        return {}
    columns = _need(database, path, RUNTIME, ("start", "correlationId"))
    thread = "globalTid" if "globalTid" in columns else "0"
    known = _has(database, KERNELS) and "globalPid" in _columns(database, KERNELS)
    rows = _query(database, path, f"SELECT start, correlationId AS correlation, {thread} AS thread FROM {RUNTIME}")
    return {
        ((row["thread"] >> 24 << 24) if known else 0, row["correlation"]): row["start"]
        for row in rows
        if isinstance(row["thread"], int) and isinstance(row["start"], int)
    }


def _ranges(database: sqlite3.Connection, path: Path) -> tuple[list[dict[str, Any]], int]:
    """Return NVTX ranges and marks in ns: start, end, name; and how many have no times. A range that was never closed
    is left out."""
    if not _has(database, "NVTX_EVENTS"):
        return [], 0
    columns = _need(database, path, "NVTX_EVENTS", ("start", "end", "eventType"))
    if not columns & {"text", "textId"}:
        _need(database, path, "NVTX_EVENTS", ("text",))
    joined = "textId" in columns and _has(database, "StringIds")
    names = [*(["n.text"] if "text" in columns else []), *(["s.value"] if joined else []), "''"]
    join = "LEFT JOIN StringIds s ON n.textId = s.id" if joined else ""
    rows = _query(
        database,
        path,
        f"SELECT n.start AS start, n.end AS end, n.eventType AS type, COALESCE({', '.join(names)}) AS name "
        f"FROM NVTX_EVENTS n {join} WHERE n.eventType IN ({MARK}, {PUSH_POP}, {START_END})",
    )
    found = []
    for row in rows:
        if row["type"] == MARK:
            row["end"] = row["start"]
        if row["end"] is not None:
            found.append({"start": row["start"], "end": row["end"], "name": str(row["name"])})
    return _timed(found)


def _timed(rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """Return the rows whose times are whole numbers in order, and how many others there are."""
    timed = [
        row
        for row in rows
        if isinstance(row["start"], int) and isinstance(row["end"], int) and row["start"] <= row["end"]
    ]
    return timed, len(rows) - len(timed)


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open an export for reading; raises UserError where it is none."""
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; give the database that nsys export --type sqlite wrote.")
    database = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    try:
        database.row_factory = sqlite3.Row
        tables = {row["name"] for row in _query(database, path, "SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "StringIds" not in tables and not any(
            name.startswith(("CUPTI_", "NVTX_", "TARGET_INFO")) for name in tables
        ):
            raise UserError(f"{path}: a database, but no export of nsys (none of its tables is there).")
        yield database
    finally:
        database.close()


def _query(database: sqlite3.Connection, path: Path, query: str) -> list[dict[str, Any]]:
    try:
        return [dict(row) for row in database.execute(query)]
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a whole SQLite export of nsys ({error}); export the report again.") from error


def _has(database: sqlite3.Connection, table: str) -> bool:
    return bool(_columns(database, table))


def _columns(database: sqlite3.Connection, table: str) -> set[str]:
    """Return a table's columns; none where there is no such table."""
    try:
        return {row["name"] for row in database.execute(f"PRAGMA table_info({table})")}
    except sqlite3.Error:
        return set()


def _need(database: sqlite3.Connection, path: Path, table: str, columns: Sequence[str]) -> set[str]:
    """Return a table's columns; raises UserError where one of those is absent."""
    found = _columns(database, table)
    absent = next((column for column in columns if column not in found), None)
    if absent:
        raise UserError(
            f"{path}: {table} has no column {absent}{_version(database)}; "
            "memgap reads the schema of nsys 2021.5 and later."
        )
    return found


def _version(database: sqlite3.Connection) -> str:
    """Return the export's schema version as words, nothing where it is not told."""
    try:
        row = database.execute("SELECT value FROM META_DATA_EXPORT WHERE name = 'EXPORT_SCHEMA_VERSION'").fetchone()
    except sqlite3.Error:
        return ""
    return f" (schema version {row[0]})" if row else ""
