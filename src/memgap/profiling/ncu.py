"""Nsight Compute: its command line, and the raw page of its CSV as a table of kernels with counters."""

import csv
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from memgap.errors import UserError
from memgap.profiling.classes import kernel_class
from memgap.profiling.metrics import COUNTERS, counters, unit_scale
from memgap.profiling.timeline import phase_and_step

IDENTITY = ("phase", "step", "kernel_class", "name", "instance", "grid", "block", "stream", "ranges")
REQUIRED = ("ID", "Kernel Name", "Block Size", "Grid Size")
_LOG_LINE = re.compile(r"==(PROF|ERROR|WARNING)== (.*)")
_QUOTED = re.compile(r'"([^"]*)"')
_NUMBER = re.compile(r"[-+]?\d[\d,]*(\.\d+)?([eE][-+]?\d+)?$|[-+]?\.\d+$")


class NoCounterPermission(UserError):  # noqa: N818 - named for what is missing
    """The driver keeps the GPU's performance counters to administrators."""


@dataclass(frozen=True)
class NcuExport:
    """What an export says: one row a kernel, why there are none where there are none, and what ncu itself remarked
    (`ERROR: ...`, `WARNING: ...`). `left_out`: rows that are broken or cut off.
    """

    table: pd.DataFrame
    reason: str
    messages: tuple[str, ...]
    left_out: int = 0


def ncu_command(
    command: Sequence[str],
    *,
    metrics: Sequence[str],
    ranges: Sequence[str] = (),
    log_file: Path | None = None,
    kernel: str | None = None,
    launches: int | None = None,
    extra: Sequence[str] = (),
    program: str = "ncu",
) -> list[str]:
    """Return the arguments that run a command under ncu.

    `ranges` are names of NVTX push/pop ranges, of which any may enclose the kernels to measure (the `/` that ends
    each tells ncu that they are push/pop); `kernel` is a regular expression over demangled names with templates,
    `launches` the most kernels to measure, `extra` further arguments of ncu. `log_file` receives the table and ncu's
    remarks apart from the program's output. Clocks are left alone, units are not scaled.
    """
    arguments = [program, "--target-processes", "all", "--clock-control", "none"]
    if ranges:
        arguments.append("--nvtx")
    for name in ranges:
        arguments += ["--nvtx-include", f"{name.rstrip('/')}/"]
    if kernel is not None:
        arguments += ["--kernel-name-base", "demangled", "--kernel-name", f"regex:{kernel}"]
    if launches is not None:
        arguments += ["--launch-count", str(launches)]
    arguments += ["--csv", "--page", "raw", "--print-units", "base", "--metrics", ",".join(metrics)]
    if log_file is not None:
        arguments += ["--log-file", str(log_file)]
    return [*arguments, *extra, *command]


def read_ncu(path: Path) -> NcuExport:
    """Read a file that `ncu --csv --page raw` wrote, or a program's output with it inside.

    Rows that are broken or cut off are left out and counted. Raises NoCounterPermission where the driver refused the
    counters, UserError for a file that is no such export or has no whole row.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); give the file that ncu --log-file wrote."
        ) from error
    if b"\0" in data:
        raise UserError(f"{path}: binary data, not the text of ncu --csv --page raw (export a report with --import).")
    return parse_ncu(data.decode("utf-8", errors="replace"), str(path))


def parse_ncu(text: str, where: str = "ncu's output") -> NcuExport:
    """Return what an export's text says; `where` names it in errors. Raises as `read_ncu` does."""
    lines = text.splitlines()
    remarks = [(match[1], match[2].strip()) for line in lines if (match := _LOG_LINE.match(line.strip()))]
    messages = tuple(f"{kind}: {said}" for kind, said in remarks if kind != "PROF")
    if any("ERR_NVGPUCTRPERM" in line for line in lines):
        raise NoCounterPermission(
            f"{where}: ncu may not read the GPU's performance counters (ERR_NVGPUCTRPERM); run as root or with "
            "CAP_SYS_ADMIN, or have the administrator load the driver with NVreg_RestrictProfilingToAdminUsers=0."
        )
    begin = next((place for place, line in enumerate(lines) if line.startswith('"ID",')), None)
    if begin is None:
        return _without_table(where, messages)
    table, left_out = _rows(lines[begin:], where)
    return NcuExport(table, "", messages, left_out)


def _without_table(where: str, messages: tuple[str, ...]) -> NcuExport:
    """Return an empty export with ncu's reason; raises UserError where ncu gave none."""
    said = [message for message in messages if "No kernels were profiled" in message]
    if said:
        errors = [message.removeprefix("ERROR: ") for message in messages if message.startswith("ERROR")]
        reason = "ncu profiled no kernels" + (
            f": {errors[0]}" if errors else " (no launch matched the ranges and names)"
        )
        return NcuExport(_table([]), reason, messages)
    failed = next((message for message in messages if message.startswith("ERROR")), "")
    hint = f"ncu said {failed.removeprefix('ERROR: ')!r}" if failed else 'there is no line that begins with "ID"'
    raise UserError(f"{where}: holds no table of ncu --csv --page raw ({hint}).")


def _rows(lines: Sequence[str], where: str) -> tuple[pd.DataFrame, int]:
    """Return the table whose header is the first line, and how many of its rows are broken and left out.

    Lines of programs after it are no rows. Raises UserError where no row can be read.
    """
    header = _fields(lines[0])
    if header is None:
        raise UserError(f"{where}: the header of ncu's table is broken; the file is cut off.")
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        raise UserError(f"{where}: ncu's table has no column {missing[0]!r}; export it with --csv --page raw.")
    units: list[str] = [""] * len(header)
    rows = []
    left_out = 0
    for number, line in enumerate(lines[1:]):
        if not re.match(r'"\d*"?(,|$)', line):
            continue
        fields = _fields(line)
        if fields is None or len(fields) != len(header):
            left_out += 1
            continue
        cells = dict(zip(header, fields, strict=True))
        if number == 0 and not fields[0]:
            units = fields
        elif not cells["Kernel Name"].strip():
            left_out += 1
        else:
            rows.append(_row(cells, dict(zip(header, units, strict=True))))
    if not rows:
        broken = f" ({left_out} rows are broken)" if left_out else ""
        raise UserError(f"{where}: ncu's table has a header but no kernels{broken}; the file is cut off.")
    return _table(rows), left_out


def _fields(line: str) -> list[str] | None:
    """Return the cells of a line, None for a broken one."""
    try:
        return next(csv.reader([line], strict=True))
    except (csv.Error, StopIteration):
        return None


def _row(cells: dict[str, str], units: dict[str, str]) -> dict[str, object]:
    """Return one kernel: identity, ranges and counters."""
    ranges = [name for column in cells if "_Range:" in column for name in range_names(cells[column])]
    steps = [step for name in ranges if (step := phase_and_step(name))]
    phase, number_of_step = steps[-1] if steps else ("", None)
    values = {name: number(cell) * unit_scale(units[name]) for name, cell in cells.items() if "__" in name}
    stream = cells.get("Stream", "")
    return {
        "phase": phase,
        "step": number_of_step,
        "kernel_class": kernel_class(cells["Kernel Name"]),
        "name": cells["Kernel Name"].strip(),
        "grid": cells["Grid Size"],
        "block": cells["Block Size"],
        "stream": int(stream) if stream.isdigit() else None,
        "ranges": ranges,
        **counters(values),
    }


def _table(rows: list[dict[str, object]]) -> pd.DataFrame:
    """Return rows as a table, kernels of one name and step numbered by `instance` in the order of their launches."""
    further = dict.fromkeys(key for row in rows for key in row if key not in (*IDENTITY, *COUNTERS))
    table = pd.DataFrame(rows, columns=[*IDENTITY, *COUNTERS, *further])
    table["instance"] = table.groupby(["phase", "step", "name"], dropna=False).cumcount() if rows else 0
    numbers = dict.fromkeys([*COUNTERS, *further], "float64")
    return table.astype({"step": "Int64", "stream": "Int64", "instance": "int64", **numbers})


def number(cell: str) -> float:
    """Return a number of ncu's, thousands separated by commas or not; NaN for anything else (`n/a`, nothing, text) and
    for what is not finite."""
    text = cell.strip()
    value = float(text.replace(",", "")) if _NUMBER.match(text) else math.nan
    return value if math.isfinite(value) else math.nan


def range_names(cell: str) -> list[str]:
    """Return the names of NVTX ranges in a cell, outermost first as ncu lists them.

    A cell holds a thread or range number and, in quotes, `domain:name:` and six fields more for each range; a name
    may have colons itself.
    """
    quoted = _QUOTED.findall(cell)
    found = []
    for entry in quoted:
        _, _, rest = entry.partition(":")
        parts = rest.rsplit(":", 6)
        if len(parts) == 7:
            found.append(parts[0])
    return found
