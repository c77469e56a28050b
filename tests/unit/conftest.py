"""What all unit tests share."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def signal_handlers_are_put_back() -> Iterator[None]:
    """A session that runs in the tests' own process takes the signals over; give them back."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture
def reference() -> Path:
    """Return the folder with the paper's published numbers; skips loudly without it."""
    folder = Path(os.environ.get("MEMGAP_PAPER_REFERENCE", Path(__file__).resolve().parents[3] / "shared/reference"))
    if not (folder / "fig10.csv").exists():
        pytest.skip(f"NOT CHECKED HERE: the paper's numbers are not at {folder} (MEMGAP_PAPER_REFERENCE)")
    return folder
