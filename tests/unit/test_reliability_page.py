"""docs/reliability.md promises nothing that no test shows."""

import ast
import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs/reliability.md"
NAMED = re.compile(r"`(test_\w+)`")


def rows() -> list[list[str]]:
    """Return the cells of the rows of the page's tables of faults: fault, what happens, what is lost, tests."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if len(row) == 4 and row[0] not in ("fault", "---")]


def test_every_fault_of_the_page_is_shown_by_a_test_that_exists() -> None:
    there = {
        node.name
        for path in (REPOSITORY / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    }
    faults = rows()
    assert len(faults) > 40
    for fault, what_happens, lost, tests in faults:
        assert fault and what_happens and lost
        named = NAMED.findall(tests)
        assert named, f"{fault}: no test is named"
        assert set(named) <= there, f"{fault}: no such test"
