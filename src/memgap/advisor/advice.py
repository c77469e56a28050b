"""Reads advice files. Jobs that measure read them too, so nothing here needs pandas."""

from pathlib import Path
from typing import Any

import yaml

from memgap.errors import DAMAGE, UserError


def read_advice(paths: list[Path]) -> dict[str, dict[str, Any]]:
    """Return the advice files by model; raises UserError where one is none."""
    advice = {}
    for path in paths:
        try:
            one = yaml.safe_load(path.read_text(encoding="utf-8"))
            advice[str(one["model"])] = {**one, "candidates": list(one["candidates"]), "rule": dict(one["rule"])}
        except (yaml.YAMLError, *DAMAGE) as error:
            raise UserError(f"{path}: not an advice file ({error}); let Snakemake make it again.") from error
    return advice
