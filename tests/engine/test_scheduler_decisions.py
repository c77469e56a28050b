"""The scheduler of the installed vLLM decides as the recorded one did, and so as ours."""

import json
import subprocess
from pathlib import Path

import pytest

from memgap.engine.identity import engine_python, engine_record
from memgap.models import write_synthetic_model
from memgap.models.registry import resolve_model
from tests.support.scheduling import decisions, recorded

SCRIPT = Path(__file__).parents[1] / "support/real_scheduler.py"

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(
        engine_record("vllm", {"adapter": "vllm", "version": "auto", "image": None})["version"] == "not-installed",
        reason="vLLM is not installed in .venv-engine: `make install`",
    ),
]


def test_installed_scheduler_decides_as_ours(tmp_path: Path) -> None:
    model = resolve_model("tiny-opt", {"tiny-opt": {"weights": "synthetic", "dtype": "float16"}})
    write_synthetic_model(model, tmp_path / "model")
    cases = recorded()["cases"]
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    argv = [engine_python("auto"), str(SCRIPT), *(str(tmp_path / one) for one in ("model", "cases.json", "out.json"))]
    subprocess.run(argv, check=True, capture_output=True, timeout=600)
    assert json.loads((tmp_path / "out.json").read_text()) == [decisions(case)[0] for case in cases]
