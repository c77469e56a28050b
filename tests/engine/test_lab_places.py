"""The places in the engine's source that the labs' pages name are there in the installed engine."""

import ast
import re
from pathlib import Path

import pytest

from memgap.engine.identity import engine_python, engine_record

PAGES = sorted((Path(__file__).parents[2] / "docs/labs").glob("[0-9]*.md"))
ENGINE = engine_record("vllm", {"adapter": "vllm", "version": "auto", "image": None})
pytestmark = [
    pytest.mark.skipif(
        ENGINE["version"] == "not-installed", reason="vLLM is not installed in .venv-engine: `make install`"
    ),
]


def _package() -> Path:
    return next(Path(engine_python("auto")).absolute().parents[1].glob("lib/python*/site-packages/vllm"))


def _names(file: Path) -> set[str]:
    found = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
            found |= {f"{node.name}.{one.name}" for one in ast.walk(node) if hasattr(one, "name") and one is not node}
    return found


def _places(page: Path) -> list[tuple[str, list[str]]]:
    section = page.read_text().partition("## Where this happens")[2].partition("\n## ")[0]
    vllm = section.partition("\nIn SGLang")[0]
    lines = re.findall(r"^- `([\w/.]+\.py)`: (.*?)(?:: .*)?$", vllm, re.MULTILINE)
    return [(path, re.findall(r"`([\w.]+)`", names)) for path, names in lines]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_each_place_is_in_the_installed_engine(page: Path) -> None:
    places = _places(page)
    assert places, "the page names no place of vLLM's source"
    moved = []
    for path, names in places:
        file = _package() / path
        known = _names(file) if file.exists() else set()
        moved += [f"{path}: {name}" for name in names or ["(the file)"] if name not in known]
    assert not moved, f"vLLM {ENGINE['version']} has these no more: {moved}"
