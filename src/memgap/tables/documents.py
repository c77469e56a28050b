"""Advice and verifications as others read them: without what makes and measures them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from memgap.errors import DAMAGE, UserError
from memgap.own_yaml import own_yaml

CLOSE = 0.05
"""Throughput and latency within this share of the prediction count as predicted."""
Document = dict[str, Any]


def read_advice(paths: Sequence[Path]) -> dict[str, Document]:
    """Return the advice files by model; raises UserError where one is none."""
    return _by_model(paths, "an advice file", _advice)


def read_verifications(paths: Sequence[Path]) -> dict[str, Document]:
    """Return stored verifications by model; raises UserError where a file is none."""
    return _by_model(paths, "a verification", _verification)


def read_twins(paths: Sequence[Path]) -> dict[str, Document]:
    """Return predicted beside measured by model, a table as "rows"; raises UserError where a file is none."""
    import pandas as pd  # which an engine's environment may lack

    found = {}
    for path in paths:
        try:
            table = pd.read_csv(path)
            found[str(table["model"].iloc[0])] = {"rows": table}
        except DAMAGE as error:
            raise UserError(f"{path}: no table of the twin ({error}); let Snakemake make it again.") from error
    return found


READERS: Mapping[str, Callable[[Sequence[Path]], dict[str, Document]]] = {
    "advice": read_advice,
    "verified": read_verifications,
    "twin": read_twins,
}
"""How figures and tables read documents, by the name in their `reads`."""


def _advice(one: Any) -> Document:
    return {**one, "candidates": list(one["candidates"]), "rule": dict(one["rule"])}


def _verification(one: Any) -> Document:
    return {**one, "holds": one["holds"], "sentence": str(one["sentence"])}


def _by_model(paths: Sequence[Path], what: str, checked: Callable[[Any], Document]) -> dict[str, Document]:
    found = {}
    for path in paths:
        try:
            one = own_yaml(path.read_text(encoding="utf-8"))
            found[str(one["model"])] = checked(one)
        except (yaml.YAMLError, *DAMAGE) as error:
            raise UserError(f"{path}: not {what} ({error}); let Snakemake make it again.") from error
    return found
