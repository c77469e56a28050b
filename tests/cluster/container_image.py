"""The fixture `mock_image`: a real Apptainer and a small image with the simulated engine, or a skip that says why."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from memgap.install.images import MOCK, Settings, build

from .apptainer_setup import NotAvailableError, ensure

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def mock_image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the image file; a skip where there is no Apptainer, a failure where MEMGAP_REQUIRE_APPTAINER=1."""
    try:
        ensure()
    except NotAvailableError as reason:
        if os.environ.get("MEMGAP_REQUIRE_APPTAINER") == "1":
            pytest.fail(f"MEMGAP_REQUIRE_APPTAINER=1, but there is none: {reason}")
        pytest.skip(f"NO APPTAINER, so nothing of the containers is tested: {reason}")
    (image,) = build([MOCK], Path(os.path.relpath(tmp_path_factory.mktemp("images"))), Settings(REPOSITORY / "envs"))
    yield image
