"""What no configuration may hold, whatever the schema says of the place: secrets, and texts that cannot be carried.

A configuration is kept in every point's record, in plans and in recorded data, so a secret in it would be published.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from memgap.engine.reserved import FLAGS, VARIABLES
from memgap.errors import UserError
from memgap.redact import secret_name, secret_shape

MOST_LEVELS = 40
MOST_INTEGER = 2**63
IMAGE = re.compile(r"[A-Za-z0-9./_][A-Za-z0-9./_:@+=-]*")
"""Snakemake puts an image's name into a shell command as it is."""
SHELL_CHARACTERS = frozenset("\"'\\`$;&|<>(){}*?!#~\n\r\t")
"""What strings below `resources` must not have: executors put them into the command that submits a job."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def check_safe(config: Mapping[str, Any]) -> None:
    """Raise UserError, naming the place and never the secret, for the first thing that must not be there.

    Refused are secrets by their name (`env` and `server`) or shape (anywhere), texts that are no UTF-8 or hold NUL,
    keys with control characters, numbers that are not finite or beyond 64 bits, values that JSON cannot hold, too many
    levels, and image names and scheduler options that a shell would read as more than a word.
    """
    _walk(config, "", 0)
    for name, engine in _mappings(config.get("engines")):
        image = engine.get("image")
        if isinstance(image, str) and not IMAGE.fullmatch(image):
            raise UserError(
                f"config: engines.{name}.image: {image!r} cannot be the name of an image; "
                "letters, digits and . / _ : @ + = - are allowed, so rename the file or link to it."
            )
    _check_words(config.get("resources"), "resources")


def _walk(value: Any, path: str, level: int) -> None:
    where = f"config: {path}" if path else "config"
    if level > MOST_LEVELS:
        raise UserError(f"{where[:200]}: nested in more than {MOST_LEVELS} levels; no configuration is so deep.")
    if isinstance(value, str):
        _check_text(value, where)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise UserError(f"{where}: {value} is no finite number; give one.")
    elif isinstance(value, int):
        if abs(value) >= MOST_INTEGER:
            raise UserError(f"{where}: the number is beyond 64 bits; give a smaller one.")
    elif isinstance(value, Mapping):
        for key, one in value.items():
            inner = f"{path}.{key}" if path else str(key)
            _check_key(key, where)
            if key in ("env", "server") and isinstance(one, Mapping):
                _check_names(one, inner, key)
            _walk(one, inner, level + 1)
    elif isinstance(value, list):
        for number, one in enumerate(value):
            _walk(one, f"{path}.{number}", level + 1)
    elif value is not None:
        raise UserError(f"{where}: a {type(value).__name__} cannot be kept as JSON; put the value in quotes.")


def _check_key(key: object, where: str) -> None:
    if not isinstance(key, str):
        raise UserError(f"{where}: {key!r} is not of type 'string'; put it in quotes.")
    if _CONTROL.search(key):
        raise UserError(f"{where}: the key {key!r} has a control character in it; remove it.")
    _check_text(key, where)


def _check_text(text: str, where: str) -> None:
    if "\0" in text:
        raise UserError(f"{where}: a text holds the character NUL, which no program can be given; remove it.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"{where}: a text is no valid Unicode (half of a surrogate pair); write it anew.") from None
    if secret_shape(text):
        raise UserError(
            f"{where}: a text has the shape of a token or password, and configurations are recorded; "
            "remove it, and export it as an environment variable where the server needs it."
        )


def _check_names(given: Mapping[Any, Any], path: str, kind: str) -> None:
    for name, value in given.items():
        if not isinstance(name, str) or value is None or name in (*VARIABLES, *FLAGS):  # those are refused as such
            continue
        if kind == "env" and secret_name(name.upper()):
            raise UserError(
                f"config: {path}.{name}: a variable of this name holds a secret, and `env` is recorded; remove it and "
                f"export {name} before memgap starts: the server inherits it and nothing records it."
            )
        if kind == "server" and secret_name(name):
            raise UserError(
                f"config: {path}.{name}: a flag of this name holds a secret, and command lines are recorded; remove it "
                "and export the environment variable that does the same before memgap starts."
            )


def _check_words(value: Any, path: str) -> None:
    if isinstance(value, str) and (found := SHELL_CHARACTERS.intersection(value)):
        raise UserError(
            f"config: {path}: {value!r} holds {min(found)!r}, which a shell would read as more than text; remove it."
        )
    for name, one in _items(value):
        _check_words(one, f"{path}.{name}")


def _items(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        return list(value.items())
    return list(enumerate(value)) if isinstance(value, list) else []


def _mappings(value: Any) -> list[tuple[Any, Mapping[str, Any]]]:
    return [(name, one) for name, one in _items(value) if isinstance(one, Mapping)]
