"""Figures are drawn to files, whatever backend a notebook or a shell has chosen for its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
BACKENDS = ("module://matplotlib_inline.backend_inline", "TkAgg", "nonsense", "")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_notebooks_backend_does_not_reach_figures(backend: str) -> None:
    code = "import memgap.figures.fig02, matplotlib; print(matplotlib.get_backend())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "MPLBACKEND": backend},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stdout.strip().lower()) == (0, "agg"), done.stderr


@pytest.mark.parametrize("script", sorted(path.name for path in (REPOSITORY / "workflow/scripts").glob("plot_*.py")))
def test_every_script_that_draws_starts_with_any_backend(script: str) -> None:
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "workflow/scripts" / script), "--help"],
        env={**os.environ, "MPLBACKEND": BACKENDS[0]},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
