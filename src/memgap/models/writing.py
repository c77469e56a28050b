"""The folder of a model whose files are made here: by its shape alone, with random weights, or from a package."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memgap.models.package import write_package_model
from memgap.models.random_file import write_random_file
from memgap.models.synthetic import write_synthetic_model

SYNTHETIC, RANDOM_FILE, PACKAGE = "synthetic", "random-file", "package"


def write_model(model: Mapping[str, Any], folder: Path, python: str) -> None:
    """Write the folder of `model`, the "model" part of a point record; `python` is an interpreter with transformers.

    Raises UserError where its weights are not made here or the folder cannot be written.
    """
    if model.get("weights") == PACKAGE:
        write_package_model(model, folder)
    elif model.get("weights") == RANDOM_FILE:
        write_synthetic_model({**model, "weights": SYNTHETIC}, folder)
        write_random_file(model, folder, python)
    else:
        write_synthetic_model(model, folder)
