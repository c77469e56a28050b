"""Writes the table of what each engine can do into docs/engines.md: `python -m memgap.engine.reference FILE`."""

import sys
from pathlib import Path

from memgap.engine.adapters import table
from memgap.engine.capabilities import DESCRIPTIONS, Capabilities, can
from memgap.markers import replaced
from memgap.store.atomic import write_text

BEGIN, END = "<!-- capabilities: begin -->", "<!-- capabilities: end -->"


def capability_table() -> str:
    """Return the capabilities by adapter as a Markdown table."""
    adapters = table()
    lines = [f"| the engine | {' | '.join(f'`{name}`' for name in adapters)} |", f"| --- |{' --- |' * len(adapters)}"]
    for name, words in {**DESCRIPTIONS, "measured": "was measured here on the real thing"}.items():
        cells = " | ".join(_cell(one, name) for one in adapters.values())
        lines.append(f"| {words} | {cells} |")
    return "\n".join(lines)


def _cell(capabilities: Capabilities, name: str) -> str:
    if name == "measured":
        return capabilities.measured or "no"
    return "yes" if can(capabilities, name) else "no"


def with_table(page: str) -> str:
    """Return a page with the table between its two marks; raises UserError where they are missing."""
    return replaced(page, BEGIN, END, f"\n{capability_table()}\n")


def main(arguments: list[str] | None = None) -> int:
    """Write the table into the page that is named; returns the exit status."""
    (name,) = sys.argv[1:] if arguments is None else arguments
    path = Path(name)
    write_text(path, with_table(path.read_text(encoding="utf-8")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
