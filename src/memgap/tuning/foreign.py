"""Values of benchmark files of others, each with a sentence where it cannot be what its argument needs."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from memgap.errors import DAMAGE, UserError
from memgap.own_yaml import as_number

NOTHING = ("none", "null", "")
NAME_CHARACTERS = 60
"""Names are cut to so many, which leaves room for a number behind them."""


def is_nothing(value: object) -> bool:
    """Whether a value says "none": null, or one of the words for it, of which YAML reads `None` as a text."""
    return value is None or (isinstance(value, str) and value.strip().lower() in NOTHING)


def each(value: Any, change: Callable[[Any], Any], where: str) -> Any:
    """Return `change` of a value, or of every value of a list, which is an axis; raises UserError for an empty one."""
    if not isinstance(value, list):
        return change(value)
    if not value:
        raise UserError(f"{where} is an empty list; give at least one value, or take it out.")
    return [change(one) for one in value]


def whole(value: Any, where: str, least: int = 1) -> int:
    """Return a whole number of at least `least`; raises UserError."""
    number = _number(value)
    if number is None or not float(number).is_integer() or number < least:
        raise UserError(f"{where} is {value!r}, but has to be a whole number of at least {least}.")
    return int(number)


def count(value: Any, where: str) -> int:
    """Return how many documents are taken; raises UserError, also for -1 (or 0), which means all of them there."""
    number = _number(value)
    if number is not None and number <= 0:
        raise UserError(
            f"{where} is {value!r}, which takes all documents; a measurement needs their number: write how many "
            "requests each run has."
        )
    return whole(value, where)


def at_least_zero(value: Any, where: str) -> float:
    """Return a number of at least 0; raises UserError."""
    number = _number(value)
    if number is None or number < 0:
        raise UserError(f"{where} is {value!r}, but has to be a number of at least 0.")
    return float(number)


def share(value: Any, where: str) -> int | float:
    """Return a number above 0 and up to 1, as it is written; raises UserError."""
    number = _number(value)
    if number is None or not 0 < number <= 1:
        raise UserError(f"{where} is {value!r}, but has to be a number above 0, 1 at most.")
    return number


def truth(value: Any, where: str) -> bool:
    """Return true or false, nothing as false; raises UserError."""
    if is_nothing(value):
        return False
    words = {"true": True, "false": False}
    found = words.get(value.strip().lower()) if isinstance(value, str) else value
    if not isinstance(found, bool):
        raise UserError(f"{where} is {value!r}, but has to be true or false.")
    return found


def text(value: Any, where: str) -> str:
    """Return a text; raises UserError for anything else."""
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where} is {value!r}, but has to be a text.")
    return value


def speculation(value: Any, where: str) -> dict[str, Any]:
    """Return a speculative config as a mapping: it is one, or JSON text of one. Raises UserError."""
    try:
        config = json.loads(value) if isinstance(value, str) else value
    except ValueError as error:
        raise UserError(f"{where} {value!r} is no JSON mapping.") from error
    if not isinstance(config, Mapping):
        raise UserError(f"{where} {value!r} is no JSON mapping.")
    made = {str(name): one for name, one in config.items()}
    tokens = made.get("num_speculative_tokens")
    if made.get("method") == "ngram" and "prompt_lookup_max" not in made and isinstance(tokens, int):
        made["prompt_lookup_max"] = max(1, tokens - 1)
    return made


def json_mapping(path: Path, where: str) -> dict[str, Any]:
    """Return the mapping of a JSON file; raises UserError, which begins with `where`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{where}: cannot read {path}: {error.strerror}.") from error
    except DAMAGE as error:
        raise UserError(f"{where}: {path} is no JSON ({error}).") from error
    if not isinstance(content, dict):
        raise UserError(f"{where}: {path} is no JSON mapping, such as a model's config.json.")
    return content


def free_name(name: str, taken: Mapping[str, Any], otherwise: str = "x") -> str:
    """Return a text as a name that the configuration may have and that is not among `taken`."""
    clean = re.sub(r"[^A-Za-z0-9._-]", "-", name).lstrip("._-")[:NAME_CHARACTERS] or otherwise
    number = 1
    while (found := clean if number == 1 else f"{clean}-{number}") in taken:
        number += 1
    return found


def _number(value: Any) -> int | float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        plain = value.strip()
        if re.fullmatch(r"-?\d{1,15}", plain):
            return int(plain)
        return float(plain) if re.fullmatch(r"-?\d{1,15}\.\d{0,15}", plain) else as_number(plain)
    return value if isinstance(value, int | float) and abs(value) < 2**53 else None
