"""Datasets made from one of the configuration by another value of one field, as an axis over a field needs them."""

import re
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from memgap.canonical import content_key
from memgap.errors import UserError

LONGEST_NAME = 64


def with_field(name: str, entry: Mapping[str, Any], field: str, value: Any) -> tuple[str, dict[str, Any]]:
    """Return a name of its own and the entry of `datasets` in which `field` has another value.

    `field` is a dotted path, numbers count in lists ("prefix_tokens", "parts.1.weight"). Equal arguments give equal
    names. Whether the value makes sense is checked where any dataset is. Raises UserError where the path leads nowhere.
    """
    changed = deepcopy(dict(entry))
    *way, last = field.split(".")
    place: Any = changed
    for step in way:
        place = _inside(place, step, name, field)
    if isinstance(place, list):
        _inside(place, last, name, field)
        place[int(last)] = value
    elif isinstance(place, dict):
        place[last] = value
    else:
        raise _nowhere(name, field, last)
    plain = not isinstance(value, (dict, list))
    said = re.sub(r"[^A-Za-z0-9._-]", "-", f"{name}-{field}-{value}") if plain else ""
    if not plain or len(said) > LONGEST_NAME:
        mark = content_key({"name": name, "field": field, "value": value})[:8]
        said = f"{name[: LONGEST_NAME - 9]}-{mark}"
    return said, changed


def _inside(place: Any, step: str, name: str, field: str) -> Any:
    try:
        return place[int(step)] if isinstance(place, list) else place[step]
    except (KeyError, IndexError, ValueError, TypeError):
        raise _nowhere(name, field, step) from None


def _nowhere(name: str, field: str, step: str) -> UserError:
    return UserError(f"datasets.{name}: there is no field {field!r} to vary: nothing is called {step!r} there.")
