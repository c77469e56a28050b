"""YAML as it was written: no key twice, and no number that YAML 1.1 reads otherwise than it looks.

YAML 1.1, which PyYAML and Snakemake read, takes `0777` for 511, `12:30` for 750 and `1_000` for 1000, and of two equal
keys the last. Files that people write are read here, so that they are told instead.
"""

import re
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from memgap.errors import DAMAGE, UserError

_NULL, _BOOL, _INT, _FLOAT = (f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float"))
_OTHERWISE = re.compile(r"[-+]?0\d.*|.*[_:].*")
"""Plain numbers that look like something else: a leading zero means octal, colons base 60, underscores nothing."""


class Written(NamedTuple):
    """A scalar: what YAML takes it for, and the characters that stand in the file."""

    value: Any
    text: str

    def __repr__(self) -> str:
        return repr(self.value)


class _MisleadingError(yaml.YAMLError):
    """Something that is YAML but does not mean what it seems to; `line` counts from 1."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(problem)
        self.line, self.problem = line, problem


class _Loader(yaml.SafeLoader):
    refuses_numbers = True

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        _refuse_twice(node)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        value: int | float = self.construct_yaml_int(node) if node.tag == _INT else self.construct_yaml_float(node)
        if self.refuses_numbers and _misleads(node):
            number = f"the number {value}" if node.style is None else "a number"
            raise _MisleadingError(
                node.start_mark.line + 1,
                f"YAML reads {node.value} as {number}; write {value} if that is meant, or '{node.value}' for a text",
            )
        return value


_Loader.add_constructor(_INT, _Loader.construct_number)
_Loader.add_constructor(_FLOAT, _Loader.construct_number)


class _Yaml11(_Loader):
    """Takes numbers as YAML 1.1 does, as files of programs that read them so are meant."""

    refuses_numbers = False


class _AsWritten(_Loader):
    """Gives every scalar as `Written`, and keys as their text."""

    refuses_numbers = False

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            return super().construct_object(node, deep)
        text = str(node.value)
        if node.tag not in (_NULL, _BOOL, _INT, _FLOAT) or (node.tag in (_INT, _FLOAT) and _misleads(node)):
            return Written(text, text)
        return Written(super().construct_object(node, deep), text)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        found = super().construct_mapping(node, deep)
        return {key.text if isinstance(key, Written) else key: value for key, value in found.items()}


def read_yaml(text: str, where: str, as_written: bool = False, as_yaml_1_1: bool = False) -> Any:
    """Return the content of a YAML text, with `as_written` every scalar as `Written`.

    With `as_yaml_1_1` numbers are what YAML 1.1 makes of them, for files that another program reads so.

    Raises UserError, which begins with `where`, for what is no YAML, holds a key twice or a number that YAML reads
    otherwise than it looks.
    """
    kind = _AsWritten if as_written else _Yaml11 if as_yaml_1_1 else _Loader
    try:
        loader = kind(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except _MisleadingError as error:
        raise UserError(f"{where}, line {error.line}: {error.problem}.") from None
    except (yaml.YAMLError, *DAMAGE) as error:
        place = getattr(error, "problem_mark", None)
        line = f", line {place.line + 1}" if place else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise UserError(f"{where}{line}: not valid YAML ({problem}).") from error


def check_files(paths: Iterable[Path | str]) -> None:
    """Raise UserError for the first of these files that does not mean what it seems to.

    For files that another program reads, and complains of in its own words where they are missing or no YAML.
    """
    for path in paths:
        try:
            text = Path(path).read_text(encoding="utf-8")
            read_yaml(text, str(path))
        except (OSError, UnicodeDecodeError):
            continue


def _misleads(node: yaml.ScalarNode) -> bool:
    """Whether YAML 1.1 reads a plain number otherwise than it looks."""
    looks = _OTHERWISE.fullmatch(node.value) is not None
    return looks and not re.fullmatch(r"[-+]?0[xb.].*", node.value)


def _refuse_twice(node: yaml.MappingNode) -> None:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            line = key.start_mark.line + 1
            if key.value in lines:
                raise _MisleadingError(
                    line,
                    f"the key {key.value!r} is there already in line {lines[key.value]}, and only one of the two would "
                    "count; put both together or rename one",
                )
            lines[key.value] = line
