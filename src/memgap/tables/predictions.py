"""The table of what the roofline allows models on GPUs, without running them."""

import pandas as pd

from memgap.roofline.predictions import COLUMNS, planned_predictions
from memgap.tables.columns import Columns
from memgap.tables.inputs import Inputs
from memgap.tables.spec import TableSpec

TABLE = TableSpec(
    name="predictions",
    title="Predictions of the roofline",
    of="predictions",
    plan="predictions",
    writes={"predictions": "results/tables/{group}.predictions.csv"},
    wanted=("predictions",),
)
READ = {"predictions": Columns("a table of predictions", COLUMNS)}


def make(inputs: Inputs) -> dict[str, pd.DataFrame]:
    """Return the predictions that the inputs' plan asks for."""
    return {"predictions": planned_predictions(inputs.plan)}
