"""What tests share is in tests/support: a test module can be changed, split or removed without a look at the others."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
MODULES = sorted(TESTS.rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Yield the dotted names of everything below `tests` that a module imports, relative imports resolved."""
    package = ("tests", *path.relative_to(TESTS).parent.parts)
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names = [one.name for one in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            names = [f"{module}.{one.name}" for one in node.names]
        else:
            continue
        yield from (name for name in names if name.startswith("tests."))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(TESTS)))
def test_a_module_imports_helpers_of_its_folder_or_of_support_only(path: Path) -> None:
    own = ("tests", *path.relative_to(TESTS).parent.parts)
    for name in imported(path):
        parts = tuple(name.split("."))
        assert parts[:2] == ("tests", "support") or parts[: len(own)] == own, f"{name} is not in tests/support"
        assert not any(part == "conftest" or part.startswith("test_") for part in parts), name


def test_the_imports_of_this_suite_are_seen() -> None:
    seen = {name for path in MODULES for name in imported(path)}
    assert "tests.support.records.small_study" in seen
