"""Writes what labs can name into a page between its markers: `python -m memgap.labs.reference docs/labs/form.md`."""

import inspect
import sys
from pathlib import Path

from memgap.labs.expected import FUNCTIONS
from memgap.labs.metric import SERIES
from memgap.markers import replaced
from memgap.store.atomic import write_text

BEGIN, END = "<!-- names: begin -->", "<!-- names: end -->"


def names() -> str:
    """Return the expectations and the values over time as Markdown."""
    lines = ["| `expected` | what it is |", "| --- | --- |"]
    for name, function in FUNCTIONS.items():
        text = " ".join(str(inspect.getdoc(function)).split("\n\n")[0].split())
        lines.append(f"| `{name}` | {text.removeprefix('Return ')} |")
    return "\n".join(lines) + f"\n\nValues over time: {', '.join(f'`{one}`' for one in SERIES)}."


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
