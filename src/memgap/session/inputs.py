"""The files that a session reads, made without the workflow."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memgap.datasets import store_dataset
from memgap.engine.identity import engine_python
from memgap.models.writing import write_model
from memgap.store.results import Results


def write_inputs(session: Mapping[str, Any], results: Path) -> None:
    """Write the model's folder, where its weights are made here, and the datasets that a session plan needs."""
    records = [point["record"] for point in session["points"]]
    if session["model_folder"] is not None:
        write_model(records[0]["model"], Results(results).model(session["model_folder"]), engine_python("auto"))
    for spec in {one["dataset"]["key"]: one["dataset"] for one in records if "dataset" in one}.values():
        store_dataset(Results(results).dataset(spec["key"]), spec)
