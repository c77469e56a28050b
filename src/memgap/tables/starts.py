"""The phases of a point's start as columns of a table."""

from collections.abc import Mapping
from typing import Any

START_COLUMNS = {
    "start_process_s": "process",
    "start_import_s": "import",
    "start_weights_s": "weights",
    "start_compile_s": "compile",
    "start_graph_capture_s": "capture",
    "start_ready_s": "ready",
}
"""Column -> phase, see `memgap.host.startup_phases`."""


def start_columns(engine: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the columns of `START_COLUMNS` from what a point says of its engine; None for what it does not tell."""
    told = engine.get("start_phases_s") or {}
    return {column: told.get(phase) for column, phase in START_COLUMNS.items()}
