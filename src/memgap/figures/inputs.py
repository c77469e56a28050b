"""What a figure is drawn from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from memgap.figures.comparison_inputs import ComparisonTables
from memgap.figures.offline_inputs import OfflineTables
from memgap.models.architecture import ModelArchitecture


@dataclass(frozen=True)
class FigureInputs:
    """The points' table, the advice by model, the folder of the paper's numbers, figure 13's kernels, for the
    roofline its predictions and the architectures by model, the tables of an offline study, and of a comparison.
    """

    table: pd.DataFrame
    advice: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    paper_reference: Path | None = None
    kernels: pd.DataFrame | None = None
    predictions: pd.DataFrame | None = None
    architectures: Mapping[str, ModelArchitecture] = field(default_factory=dict)
    offline: OfflineTables = field(default_factory=OfflineTables)
    comparison: ComparisonTables = field(default_factory=ComparisonTables)

    @property
    def models(self) -> Sequence[str]:
        """The models in the table's order, each once."""
        return list(dict.fromkeys(self.table["model"].dropna()))
