"""The files of a recorded study.

For each session `<session>.jsonl`, one measured point a line as it was stored, and beside it
`<session>.telemetry.csv.gz` (samples averaged to at most 60 a point) and `<session>.kernels.csv.gz` (the kernels of a
profiled point's first 50 ms). Offline points have `.steps` (each eighth decode step), `.classes`, `.timeline`,
`.counters` and `.gpu` (averaged like telemetry). Points of static batches have all their `.steps`. Of points of a
mixture `.groups` has the latencies of each part and `.gaps` a choice of the gaps between tokens. Where it was asked
for, `.requests` has the requests as they were and `.startup` the memory while the server started (averaged).
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from memgap.errors import DAMAGE, UserError
from memgap.shipped import ROOT
from memgap.tables.gzipped import table_gz

ASKED = ("requests", "startup")
"""Recorded only where it is asked for."""
THINNED = ("telemetry", "kernels", "steps", "classes", "timeline", "counters", "gpu", "groups", "gaps", *ASKED)


def study_folder(name: str) -> Path:
    """Return the folder of a recorded study: below the working directory, or else below the checkout.

    Raises UserError where neither has it.
    """
    for folder in (Path(name), ROOT / name):
        if folder.is_dir():
            return folder
    raise UserError(f"config: recorded: {name} is no folder with recorded data; the project's own is recorded/h200.")


def points_file(folder: Path, session: str) -> Path:
    """Return where a session's points lie."""
    return folder / f"{session}.jsonl"


def series_file(folder: Path, session: str, kind: str) -> Path:
    """Return where a session's thinned series of a kind of `THINNED` lie."""
    return folder / f"{session}.{kind}.csv.gz"


def read_points(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the points of a file; nothing where it is absent. Raises UserError for a damaged one."""
    if not path.exists():
        return
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); take the file from the repository again.") from error
    for number, line in enumerate(lines, start=1):
        try:
            point: dict[str, Any] = json.loads(line)
            if not (isinstance(point["key"], str) and isinstance(point["record"], dict)):
                raise TypeError
        except DAMAGE as error:
            raise UserError(
                f"{path}, line {number}: no recorded point; take the file from the repository again."
            ) from error
        yield point


def all_points(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield all points of a recorded study; raises UserError where there is no such folder."""
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder with recorded data.")
    for path in sorted(folder.glob("*.jsonl")):
        yield from read_points(path)


def read_series(path: Path) -> pd.DataFrame:
    """Return a thinned series, empty where it is absent; raises UserError where the file is damaged."""
    if not path.exists():
        return pd.DataFrame({"key": pd.Series(dtype=str)})
    try:
        table = pd.read_csv(path)
        if "key" not in table.columns:
            raise ValueError("there is no column key")
    except DAMAGE as error:
        raise UserError(f"{path} is damaged ({error}); take the file from the repository again.") from error
    return table


def write_series(path: Path, table: pd.DataFrame) -> None:
    """Write a thinned series without a time stamp in it."""
    path.write_bytes(table_gz(table))
