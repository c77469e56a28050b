"""What the pages name is there: files of the checkout, and modules of the package."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "config/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
PATHS = re.compile(r"`((?:src/memgap/|workflow/|config/|tests/|benchmarks/)[A-Za-z0-9_./{},*-]+)`")
MODULES = re.compile(r"`(memgap(?:\.[a-z_0-9]+)+)`")
EXAMPLES = re.compile(r"NAME|figNN|tab0N")
"""Names that stand for others."""


def spelled(path: str) -> list[str]:
    """Return a path for each of the names between braces."""
    before, brace, rest = path.partition("{")
    names, _, after = rest.partition("}")
    return [f"{before}{name}{after}" for name in names.split(",")] if brace else [path]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_every_file_and_module_that_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = [path for found in PATHS.findall(text) for path in spelled(found) if not EXAMPLES.search(path)]
    assert [path for path in named if not list(ROOT.glob(path.rstrip("/")))] == []
    for module in MODULES.findall(text):
        place = ROOT.joinpath("src", *module.split("."))
        assert place.is_dir() or place.with_suffix(".py").exists() or place.parent.with_suffix(".py").exists(), module
