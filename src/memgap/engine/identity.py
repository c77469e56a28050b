"""Which engine a point belongs to: package and version, as installed or as declared."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memgap import __version__
from memgap.engine.adapters import adapter_for

ENGINE_FOLDER = ".venv-engine"
NOT_INSTALLED = "not-installed"
NOTE = "memgap-engine.json"
"""Written into the engine's folder by the installer: {"package", "version"}."""


def engine_record(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the "engine" part of a point's record from the configuration of the engine.

    With `version: auto` it is the version that the installer noted, or "not-installed". A declared version or an image
    belongs to another machine: unless it is the one installed here, its package is the adapter's usual one.
    """
    usual = adapter_for(settings["adapter"]).package
    installed = _installed(settings["adapter"], usual)
    version = installed["version"] if settings["version"] == "auto" else settings["version"]
    here = settings["image"] is None and version == installed["version"]
    return {
        "name": name,
        "adapter": settings["adapter"],
        "package": installed["package"] if here else usual,
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


def _installed(adapter: str, usual: str) -> dict[str, str]:
    """Return package and version as the installer noted them; of a package beside vLLM, what its environment holds."""
    if adapter == "mock":
        return {"package": usual, "version": __version__}
    folder = _engine_folder()
    if folder is None:
        return {"package": usual, "version": NOT_INSTALLED}
    if adapter != "vllm":
        found = sorted(folder.glob(f"lib/python3*/site-packages/{usual}-*.dist-info"))
        versions = [path.name.removesuffix(".dist-info").removeprefix(f"{usual}-") for path in found]
        return {"package": usual, "version": versions[-1] if versions else NOT_INSTALLED}
    try:
        note = json.loads((folder / NOTE).read_text(encoding="utf-8"))
        return {"package": str(note["package"]), "version": str(note["version"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {"package": usual, "version": NOT_INSTALLED}
