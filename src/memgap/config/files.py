"""Reads configuration files the way Snakemake does: later files are laid over earlier ones, mapping by mapping."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memgap.config.load import has_points
from memgap.config.reading import read_yaml
from memgap.errors import UserError
from memgap.shipped import QUICKSTART

DEFAULT = Path("config/config.yaml")


def default_file() -> Path:
    """Return what is measured where no file says it: the study's own configuration, without one the quickstart's."""
    return DEFAULT if DEFAULT.exists() else QUICKSTART


def read_config_files(paths: Sequence[Path]) -> dict[str, Any]:
    """Return the merged content of `paths`; where none of them says what to measure, laid over `default_file()`.

    Raises UserError for a file that is missing or no YAML mapping.
    """
    merged: dict[str, Any] = {}
    for path in paths:
        _lay_over(merged, _read(path))
    if not has_points(merged):
        base = _read(default_file())
        _lay_over(base, merged)
        return base
    return merged


def _read(path: Path) -> dict[str, Any]:
    try:
        content = read_yaml(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise UserError(f"cannot read the configuration {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not valid YAML ({error}).") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: the configuration has to be a mapping, not {type(content).__name__}.")
    return content


def _lay_over(base: dict[str, Any], top: Mapping[str, Any]) -> None:
    for key, value in top.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            _lay_over(base[key], value)
        else:
            base[key] = value
