"""Which files of the package a module runs: found in its text, so that editing one of them makes stale what it made."""

import ast
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from memgap.declared import PACKAGE


def code_of(module: str) -> list[str]:
    """Return the paths of a module and of all that it imports of this package, and their data files, sorted.

    Imports inside functions count, those for type checkers alone as well. A data file is one in a module's folder whose
    name the module has as a text. Paths are relative to the working directory.
    """
    found: set[Path] = set()
    waiting = [path_of(module)]
    while waiting:
        path = waiting.pop()
        if path is not None and path not in found:
            found.add(path)
            waiting.extend(_used_by(path))
    return [os.path.relpath(path) for path in sorted(found)]


def path_of(module: str) -> Path | None:
    """Return the file of a module of this package, None for a name that is no module."""
    base = PACKAGE.parent.joinpath(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


@cache
def _used_by(path: Path) -> tuple[Path | None, ...]:
    if path.suffix != ".py":
        return ()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return tuple(found for node in ast.walk(tree) for found in _files_of(node, path.parent))


def _files_of(node: ast.AST, folder: Path) -> Iterator[Path | None]:
    if isinstance(node, ast.Import):
        yield from (path_of(name.name) for name in node.names if name.name.startswith("memgap"))
    elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("memgap"):
        yield path_of(str(node.module))
        yield from (path_of(f"{node.module}.{name.name}") for name in node.names)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.endswith((".yaml", ".json")):
        yield folder / node.value if (folder / node.value).is_file() else None
