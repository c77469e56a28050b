"""Checked reading of the fields of one mapping, for config entries and records."""

import difflib
import math
from collections.abc import Collection, Mapping
from typing import Any, Final

from memgap.errors import UserError
from memgap.own_yaml import as_number

REQUIRED: Final = object()
"""Default of a field that must be given."""


def suggest(name: str, known: Collection[str]) -> str:
    """Return a clause that names the known names, and the nearest one first where one is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    guess = f"did you mean {near[0]}? " if near else ""
    return f"{guess}known: {', '.join(sorted(known))}"


class Fields:
    """The fields of `mapping`, each read with a check of its type and range.

    `where` names the place in the user's config; it starts every error.
    Raises UserError where `mapping` is no mapping or holds a field that is not in `known`.
    """

    def __init__(self, mapping: object, where: str, known: Collection[str]) -> None:
        if not isinstance(mapping, Mapping):
            raise UserError(f"{where}: got {mapping!r}, but must be a mapping of fields")
        self.where = where
        self.values: dict[str, Any] = {}
        for name, value in mapping.items():
            if not isinstance(name, str) or name not in known:
                raise UserError(f"{where}: unknown field {name!r} ({suggest(str(name), known)})")
            self.values[name] = value

    def given(self, name: str) -> bool:
        """Tell whether `name` is there and not null."""
        return self.values.get(name) is not None

    def error(self, name: str, rule: str) -> UserError:
        """Return the error for a bad value of `name`; `rule` says what it must be."""
        return UserError(f"{self.where}: {name} is {self.values.get(name)!r}, but must be {rule}")

    def _value(self, name: str, default: Any) -> Any:
        if self.given(name):
            return self.values[name]
        if default is REQUIRED:
            raise UserError(f"{self.where}: {name} is missing")
        return default

    def _number(self, name: str, default: Any) -> Any:
        """Return a value, as a number where it is a text such as 1e3."""
        value = self._value(name, default)
        number = as_number(value) if isinstance(value, str) else None
        return value if number is None else number

    def integer(self, name: str, *, minimum: int, default: Any = REQUIRED) -> int:
        """Return a whole number of at least `minimum`; raises UserError."""
        value = self._number(name, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise self.error(name, f"a whole number of at least {minimum}")
        return value

    def number(self, name: str, *, above: float, default: Any = REQUIRED) -> float:
        """Return a finite number greater than `above`; raises UserError."""
        value = self._number(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= above:
            raise self.error(name, f"a number greater than {above:g}")
        return float(value)

    def text(self, name: str, *, choices: Collection[str] | None = None, default: Any = REQUIRED) -> str:
        """Return a non-empty text, one of `choices` where they are given; raises UserError."""
        value = self._value(name, default)
        if not isinstance(value, str) or not value:
            quoted = ", in quotes" if isinstance(value, bool | int | float) else ""
            raise self.error(name, f"a non-empty text{quoted}")
        if choices is not None and value not in choices:
            raise self.error(name, f"one of {', '.join(sorted(choices))}")
        return value

    def optional_text(self, name: str) -> str | None:
        """Return a non-empty text, or None where the field is absent or null; raises UserError."""
        return self.text(name) if self.given(name) else None

    def flag(self, name: str, *, default: bool) -> bool:
        """Return true or false; raises UserError for anything else."""
        value = self._value(name, default)
        if not isinstance(value, bool):
            raise self.error(name, "true or false")
        return value
