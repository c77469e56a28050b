"""Which engine a point belongs to: package and version, as installed or as declared."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memgap import __version__

USUAL_PACKAGES = {"vllm": "vllm", "mock": "memgap-mock"}
ENGINE_FOLDER = ".venv-engine"
NOTE = "memgap-engine.json"
"""Written into the engine's folder by the installer: {"package", "version"}."""


def engine_record(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the "engine" part of a point's record from the configuration of the engine.

    With `version: auto` it is the version that the installer noted, or "not-installed". A declared version or an image
    belongs to another machine: unless it is the one installed here, its package is the adapter's usual one.
    """
    installed = _installed(settings["adapter"])
    version = installed["version"] if settings["version"] == "auto" else settings["version"]
    here = settings["image"] is None and version == installed["version"]
    return {
        "name": name,
        "adapter": settings["adapter"],
        "package": installed["package"] if here else USUAL_PACKAGES[settings["adapter"]],
        "version": version,
        "image": settings["image"],
    }


def engine_python(setting: str) -> str:
    """Return the interpreter that has the engine installed; see `engines.<name>.python` in the schema."""
    if setting != "auto":
        return setting
    declared = os.environ.get("MEMGAP_ENGINE_PYTHON")
    if declared:
        return declared
    folder = _engine_folder()
    return str(folder / "bin" / "python") if folder else sys.executable


def _engine_folder() -> Path | None:
    """Return the engine's environment: in the working directory, else in the checkout this package runs from."""
    for root in (Path.cwd(), Path(__file__).resolve().parents[3]):
        if (root / ENGINE_FOLDER / "bin" / "python").exists():
            return root / ENGINE_FOLDER
    return None


def _installed(adapter: str) -> dict[str, str]:
    if adapter == "mock":
        return {"package": USUAL_PACKAGES[adapter], "version": __version__}
    folder = _engine_folder()
    if folder is not None:
        try:
            note = json.loads((folder / NOTE).read_text(encoding="utf-8"))
            return {"package": str(note["package"]), "version": str(note["version"])}
        except (OSError, ValueError, KeyError, TypeError):
            pass
    return {"package": USUAL_PACKAGES[adapter], "version": "not-installed"}
