"""Reads the YAML files that this package brings or writes itself, with the parser in C where PyYAML has it.

It is ten times faster, and these files are read at each start. What users write goes through `memgap.config.reading`,
which says better what is wrong; numbers that YAML 1.1 takes for texts are read by `as_number` wherever they stand.
"""

import math
import re
from typing import Any

import yaml

_EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def own_yaml(text: str) -> Any:
    """Return the content of a YAML document; raises yaml.YAMLError."""
    loader = _LOADER(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def as_number(text: str) -> int | float | None:
    """Return what a text such as 1e3 or 2.5E-4 stands for, whole where it is; None for any other text."""
    if not _EXPONENT.fullmatch(text):
        return None
    number = float(text)
    if not math.isfinite(number):
        return None
    return int(number) if number.is_integer() and abs(number) < 2**53 else number
