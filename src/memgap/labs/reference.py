"""Writes what labs can name into a page between its markers: `python -m memgap.labs.reference docs/labs/form.md`."""

import inspect
import sys
from pathlib import Path

from memgap.labs.expected import FUNCTIONS
from memgap.labs.metric import SERIES, column_names
from memgap.markers import replaced
from memgap.store.atomic import write_text

BEGIN, END = "<!-- names: begin -->", "<!-- names: end -->"


def names() -> str:
    """Return the expectations and metrics as Markdown."""
    lines = ["| `expected` | what it is |", "| --- | --- |"]
    for name, function in FUNCTIONS.items():
        text = " ".join(str(inspect.getdoc(function)).split("\n\n")[0].split())
        lines.append(f"| `{name}` | {text.removeprefix('Return ')} |")
    parts = ["\n".join(lines)]
    for kind, told in (("serving", "serving and static labs"), ("offline", "offline labs")):
        parts.append(f"Metrics of {told}: {', '.join(f'`{one}`' for one in sorted(column_names(kind)))}.")
    parts.append(f"Values over time: {', '.join(f'`{one}`' for one in SERIES)}.")
    return "\n\n".join(parts)


def with_names(page: str) -> str:
    """Return a page with the names between its markers; raises UserError where they are missing."""
    return replaced(page, BEGIN, END, f"\n{names()}\n")


def main(arguments: list[str] | None = None) -> int:
    """Write the names into the page that is named; returns the exit status."""
    (name,) = sys.argv[1:] if arguments is None else arguments
    path = Path(name)
    write_text(path, with_names(path.read_text(encoding="utf-8")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
