"""Which engine a point belongs to: package and version, as installed or as declared."""

import json
import os
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from memgap import __version__
from memgap.containers.digest import image_digest
from memgap.engine.adapters import adapter_for
from memgap.errors import UserError
from memgap.shipped import ROOT

ENGINE_FOLDER = ".venv-engine"
NOT_INSTALLED, UNKNOWN = "not-installed", "unknown"
NOTE = "memgap-engine.json"
"""Written into the engine's folder by the installer: {"package", "version"}."""
IMAGE_ENGINE = Path("/opt/memgap-engine")
"""Where this project's images have the engine."""


def engine_record(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the "engine" part of a point's record from the configuration of the engine.

    With `version: auto` it is the version that the installer noted beside the interpreter, or "not-installed". A
    declared version or an image belongs to another machine: unless it is the one installed here, its package is the
    adapter's usual one. An image is recorded by its digest, which says its version too: "auto" stays. Raises UserError
    for an image without one.
    """
    if settings["image"] is not None:
        return _image_record(name, settings)
    usual = adapter_for(settings["adapter"]).package
    installed = _installed(settings["adapter"], usual, settings.get("python", "auto"))
    version = installed["version"] if settings["version"] == "auto" else settings["version"]
    here = version == installed["version"]
    return {
        "name": name,
        "adapter": settings["adapter"],
        "package": installed["package"] if here else usual,
        "version": version,
        "image": None,
    }


def _image_record(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    pinned = settings.get("image_digest")
    return {
        "name": name,
        "adapter": settings["adapter"],
        "package": adapter_for(settings["adapter"]).package,
        "version": settings["version"],
        "image": pinned or image_digest(settings["image"], None, f"config: engines.{name}"),
    }


def check_version(engine: Mapping[str, Any], running: str | None, what: str) -> None:
    """Raises UserError where what runs (`what`: "server") is of another version than the points' engine declares.

    The part after a plus, such as "+cpu", names a build of the same version. "auto" without a number says nothing.
    """
    declared = engine["version"]
    if (
        running is None
        or declared in (NOT_INSTALLED, UNKNOWN, "auto")
        or running.split("+")[0] == declared.split("+")[0]
    ):
        return
    raise UserError(
        f"the points belong to {engine['package']} {declared}, but the {what} is {running}; "
        "set engines.*.version to it or install the other one."
    )


def check_installed(engine: Mapping[str, Any], python: str) -> None:
    """Raises UserError where points of an absent vLLM would be measured with this workflow's own interpreter."""
    own = engine["adapter"] == "vllm" and engine["version"] == NOT_INSTALLED and python == sys.executable
    if own and find_spec("vllm") is None:
        raise UserError(f"vLLM is not installed in {ENGINE_FOLDER}; run `memgap install` in this folder.")


def engine_python(setting: str, image: str | None = None) -> str:
    """Return the interpreter that has the engine installed; see `engines.<name>.python` in the schema.

    In an `image` it is the image's own: what lies in the working directory belongs to the host.
    """
    if setting != "auto":
        return setting
    if image is not None:
        own = IMAGE_ENGINE / "bin" / "python"
        return str(own) if own.exists() else sys.executable
    declared = os.environ.get("MEMGAP_ENGINE_PYTHON")
    if declared:
        return declared
    folder = _engine_folder()
    return str(folder / "bin" / "python") if folder else sys.executable


def _engine_folder() -> Path | None:
    """Return the engine's environment: in the working directory, else in the checkout this package runs from."""
    for root in (Path.cwd(), ROOT):
        if (root / ENGINE_FOLDER / "bin" / "python").exists():
            return root / ENGINE_FOLDER
    return None


def _installed(adapter: str, usual: str, python: str) -> dict[str, str]:
    """Return package and version as the installer noted them, else what the environment holds.

    An interpreter that a configuration names is in an environment of its own, as versions have that are compared.
    """
    if adapter == "mock":
        return {"package": usual, "version": __version__}
    named = Path(python).parents[1] if python != "auto" and len(Path(python).parents) > 1 else None
    if named is not None:
        found = (adapter == "vllm" and _noted(named)) or _in_environment(named, usual)
        return found or {"package": usual, "version": NOT_INSTALLED}
    for folder in filter(None, (_declared_folder(), _engine_folder())):
        found = _noted(folder) if adapter == "vllm" else _in_environment(folder, usual)
        if found is not None:
            return found
    return {"package": usual, "version": NOT_INSTALLED}


def _noted(folder: Path) -> dict[str, str] | None:
    try:
        note = json.loads((folder / NOTE).read_text(encoding="utf-8"))
        return {"package": str(note["package"]), "version": str(note["version"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _in_environment(folder: Path, package: str) -> dict[str, str] | None:
    found = sorted(folder.glob(f"lib/python3*/site-packages/{package}-*.dist-info"))
    versions = [path.name.removesuffix(".dist-info").removeprefix(f"{package}-") for path in found]
    return {"package": package, "version": versions[-1]} if versions else None


def _declared_folder() -> Path | None:
    """Return the environment that MEMGAP_ENGINE_PYTHON names, as in an image where everything runs inside."""
    declared = os.environ.get("MEMGAP_ENGINE_PYTHON")
    return Path(declared).parents[1] if declared and len(Path(declared).parents) > 1 else None
