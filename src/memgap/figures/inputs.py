"""What a figure is drawn from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from memgap.figures.offline_inputs import OfflineTables


@dataclass(frozen=True)
class FigureInputs:
    """The points' table, the advice by model, the folder of the paper's numbers, figure 13's kernels, and the tables of
    an offline study.
    """

    table: pd.DataFrame
    advice: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    paper_reference: Path | None = None
    kernels: pd.DataFrame | None = None
    offline: OfflineTables = field(default_factory=OfflineTables)

    @property
    def models(self) -> Sequence[str]:
        """The models in the table's order, each once."""
        return list(dict.fromkeys(self.table["model"].dropna()))
