"""Builds a dataset and stores it, and says what was left out of it."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memgap.datasets.build import built
from memgap.datasets.files import save_dataset
from memgap.datasets.sharegpt import source_files
from memgap.datasets.traces import told


def store_dataset(path: Path, spec: Mapping[str, Any]) -> None:
    """Build the dataset of `spec` and write it to `path` (an .npz); what a trace lost is said on standard error.

    Raises UserError.
    """
    prompts, trace = built(spec)
    save_dataset(path, spec, prompts, source_files(spec), trace)
    if trace is not None and (sentence := told(trace, spec["path"])):
        print(f"memgap: {sentence}", file=sys.stderr)
