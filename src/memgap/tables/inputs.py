"""What a figure or table is made from: tables by the names in its `reads`, read when they are asked for."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd

from memgap.declared import MODELS
from memgap.declared.tables import modules, table_of
from memgap.models.architecture import ModelArchitecture
from memgap.tables.columns import Columns

Document = Mapping[str, Any]


class Inputs:
    """Tables and documents by name, such as "sweep.points"; each is a file, or what it holds already.

    What was not given is empty: a table has its columns and no row. `plan` is the job's part of the configuration,
    `points` the store's folder of points, `paper_reference` the folder of the paper's numbers, `architectures` those of
    the configuration's models by name, for who reads `config.models`.
    """

    def __init__(
        self,
        given: Mapping[str, Any] | None = None,
        *,
        plan: Mapping[str, Any] | None = None,
        points: Path = Path("results/points"),
        paper_reference: Path | None = None,
        architectures: Mapping[str, ModelArchitecture] | None = None,
    ) -> None:
        self._given = dict(given or {})
        self.plan: Mapping[str, Any] = plan or {}
        self.points = points
        self.paper_reference = paper_reference
        self.architectures: Mapping[str, ModelArchitecture] = architectures or {}

    def __getitem__(self, name: str) -> pd.DataFrame:
        """Return the table of that name (the first of several); raises UserError where its file is none."""
        tables = self.all(name)
        return tables[0] if tables else columns_of(name).empty()

    def __contains__(self, name: str) -> bool:
        return bool(_listed(self._given.get(name)))

    def all(self, name: str) -> list[pd.DataFrame]:
        """Return all tables of that name."""
        given = [columns_of(name).read(one) if isinstance(one, Path) else one for one in _listed(self._given.get(name))]
        if self.paper_reference is not None:
            given = [_as_in_the_paper(one) for one in given]
        self._given[name] = given
        return given

    def by_model(self, name: str) -> Mapping[str, Document]:
        """Return the documents of that name, such as "sweep.advice", by model; raises UserError where one is none."""
        given = self._given.get(name, {})
        if isinstance(given, Mapping):
            return given
        module = import_module("memgap.tables.documents")
        found: Mapping[str, Document] = module.READERS[name.split(".")[1]](_listed(given))
        self._given[name] = found
        return found

    @property
    def advice(self) -> Mapping[str, Document]:
        """The advice of the sweep that is drawn, by model."""
        return self.by_model("sweep.advice")


def columns_of(name: str) -> Columns:
    """Return how a table of that name is read."""
    setting, file = name.split(".")
    table = table_of(setting, file) if name != MODELS else None
    if table is None:
        raise KeyError(f"no table is called {name}")
    columns: Columns = import_module(modules()[table.name]).READ[file]
    return columns


def _as_in_the_paper(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of points with averages over the whole window, as the paper has; others as they are."""
    points = import_module("memgap.tables.points")
    found: pd.DataFrame = points.in_window(table) if set(points.WINDOW_COLUMNS) <= set(table.columns) else table
    return found


def _listed(given: Any) -> Sequence[Any]:
    if given is None:
        return []
    return given if isinstance(given, list | tuple) else [given]
