"""The columns of a table, and its files read back with their types or refused in one sentence."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from memgap.errors import DAMAGE, UserError

AGAIN = "let Snakemake make it again"


@dataclass(frozen=True)
class Columns:
    """The columns of a table in their order.

    `what`: how a sentence calls the table. `text`: those that hold text. `numbers`: the rest are numbers; otherwise
    they are what pandas takes them for. `needed`: those without which it is no such table, all where None; the others
    are empty where they are missing. `more`: further columns whose names begin so are numbers too.
    """

    what: str
    names: tuple[str, ...]
    text: tuple[str, ...] = ()
    numbers: bool = False
    needed: tuple[str, ...] | None = None
    more: str = field(default="")

    def empty(self) -> pd.DataFrame:
        """Return the table without a row."""
        return self.typed(pd.DataFrame(columns=list(self.names)))

    def joined(self, tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
        """Return the rows of several tables, which have all columns, with their types; none of none."""
        return self.typed(pd.concat(tables, ignore_index=True)[list(self.names)]) if tables else self.empty()

    def read(self, path: Path) -> pd.DataFrame:
        """Return a table from its file (.csv or .parquet); raises UserError where it is none."""
        try:
            if path.suffix == ".parquet":
                table = pd.read_parquet(path)
            else:
                table = pd.read_csv(path, dtype=dict.fromkeys(self.text, "object"), low_memory=False)
        except DAMAGE as error:
            raise UserError(f"{path}: not {self.what} ({error}); {AGAIN}.") from error
        return self.checked(table, str(path))

    def checked(self, table: pd.DataFrame, where: str) -> pd.DataFrame:
        """Return the table with all columns and their types; raises UserError, naming `where`, where it is none."""
        needed = self.names if self.needed is None else self.needed
        missing = [name for name in needed if name not in table.columns]
        if missing:
            raise UserError(f"{where}: not {self.what}, the column {missing[0]} is missing; {AGAIN}.")
        absent = [name for name in self.names if name not in table.columns]
        try:
            return self.typed(table.assign(**dict.fromkeys(absent)))
        except DAMAGE as error:
            raise UserError(f"{where}: not {self.what} ({error}); {AGAIN}.") from error

    def typed(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return the table with text as str or None, and numbers as floats where all others are numbers."""
        if not self.numbers:
            return table
        others = [name for name in table.columns if name in self.names or (self.more and name.startswith(self.more))]
        numbers = {name: pd.to_numeric(table[name]).astype(float) for name in others if name not in self.text}
        texts = {name: table[name].astype("string").astype(object) for name in self.text}
        typed = table.assign(**numbers, **texts)
        for name in texts:
            typed[name] = typed[name].where(typed[name].notna(), None)
        return typed
