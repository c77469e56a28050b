"""Writes how to read figures and tables into a page between its markers: `python -m memgap.tables.reference PAGE`."""

import sys
from collections.abc import Iterable
from pathlib import Path

from memgap.declared.figures import FigureSpec, figures
from memgap.declared.tables import TableSpec, tables
from memgap.markers import replaced
from memgap.store.atomic import write_text

BEGIN = "<!-- made from the declarations in src/memgap by `make docs`; a test checks that it is current -->"
END = "<!-- end of what is made from declarations -->"


def sections() -> str:
    """Return a section for each figure, the paper's first, and each table that a configuration names."""
    papers_first = sorted(figures().values(), key=lambda one: (not one.paper, one.category, one.name))
    named = sorted((table for table in tables().values() if not table.of), key=lambda one: (one.title, one.name))
    return "\n\n".join([*_sections(papers_first), *_sections(named)])


def page_with_sections(page: str) -> str:
    """Return a page with what is between its markers made anew; raises UserError where it has none."""
    return replaced(page, BEGIN, END, f"\n\n{sections()}\n\n")


def _sections(specs: Iterable[FigureSpec | TableSpec]) -> list[str]:
    return [f"## {spec.title}\n\n{_where(spec)}\n\n{spec.caption.strip()}" for spec in specs]


def _where(spec: FigureSpec | TableSpec) -> str:
    if isinstance(spec, FigureSpec):
        return f"`figures/{spec.path('<name>')}` (`.pdf`, `.png`, `.csv`)"
    first, *others = spec.writes.values()
    endings = ", ".join(f"`{path.removeprefix(first.removesuffix('.csv'))}`" for path in others)
    return f"`{first}` ({endings})" if others else f"`{first}`"


def main(argv: list[str]) -> int:
    """Write the page that is given anew."""
    path = Path(argv[0])
    write_text(path, page_with_sections(path.read_text(encoding="utf-8")))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
