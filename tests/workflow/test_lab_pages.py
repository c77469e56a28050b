"""The labs' pages say what the recorded points say."""

from pathlib import Path

from memgap.labs.pages import pages

ROOT = Path(__file__).parents[2]


def test_the_pages_of_the_labs_are_current(monkeypatch):
    monkeypatch.chdir(ROOT)
    stale = [page.name for page, text in pages(Path("docs/labs")).items() if page.read_text(encoding="utf-8") != text]
    assert not stale, "run `make docs`"
