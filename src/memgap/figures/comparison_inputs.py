"""The tables of a comparison of engines, as its figures read them."""

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from memgap.errors import UserError
from memgap.kinds.static import engines, kv, memory

COLUMNS = {"engines": engines.COLUMNS, "kv": kv.COLUMNS, "memory": memory.COLUMNS}


@dataclass(frozen=True)
class ComparisonTables:
    """One row a point, one row a point and KV layout, one row a sample of memory."""

    engines: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(engines.COLUMNS)))
    kv: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(kv.COLUMNS)))
    memory: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(memory.COLUMNS)))


def read_comparison(files: dict[str, Path | None]) -> ComparisonTables:
    """Return the tables of the given files by kind; raises UserError where one is none of that kind."""
    found = {}
    for kind, path in files.items():
        if path is None:
            continue
        try:
            table = pd.read_csv(path)
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: no table of a comparison ({error}); let Snakemake make it again.") from error
        missing = [name for name in COLUMNS[kind] if name not in table]
        if missing:
            raise UserError(f"{path}: the column {missing[0]} is missing; let Snakemake make it again.")
        found[kind] = table
    return ComparisonTables(**found)
