"""Which files of the package a module runs: found in its text, so that editing one of them makes stale what it made."""

import os
import re
from functools import cache
from pathlib import Path

from memgap.declared import PACKAGE

IMPORT = re.compile(r"^[ \t]*(?:from|import) (memgap(?:\.\w+)*)(?: import (?:\(([^)]*)\)|(.+)))?", re.MULTILINE)
"""A statement's module and the names that it takes from it; a pattern, since parsing all files takes half a second."""
DATA_FILE = re.compile(r"""["']([\w./-]+\.(?:yaml|json|html|css|js))["']""")


def code_of(module: str, *alone: str) -> list[str]:
    """Return the paths of a module and of all that it imports of this package, and their data files, sorted.

    Imports inside functions count, those for type checkers alone as well. A data file is one in a module's folder whose
    name the module has as a text. Of the modules `alone` their own files count and not what they import. Paths are
    relative to the working directory.
    """
    found = {path for path in map(path_of, alone) if path is not None}
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
def _used_by(path: Path) -> tuple[Path, ...]:
    if path.suffix != ".py":
        return ()
    text = path.read_text(encoding="utf-8")
    found = {path.parent / name for name in DATA_FILE.findall(text)}
    for module, in_brackets, in_line in IMPORT.findall(text):
        names = re.findall(r"\w+", re.sub("#.*", "", in_brackets or in_line))
        found |= {one for one in map(path_of, [module, *(f"{module}.{name}" for name in names)]) if one is not None}
    return tuple(one for one in found if one.is_file())
