"""What a session's job asks for, and the scripts that are written without submitting them."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from memgap.cluster.resources import session_gpus, session_runtime_min
from memgap.cluster.scripts import ENTRY_POINT, write_scripts
from memgap.cluster.site import Site
from memgap.datasets import build_dataset, save_dataset
from memgap.errors import UserError
from memgap.models import write_synthetic_model
from memgap.workflow import load_study

RESOURCES = {"gpus": 1, "nodes": 1, "cpus": 4, "mem_mb": 1000, "runtime_min": 30, "max_runtime_min": 50}


def record(**flags: Any) -> dict[str, Any]:
    return {"model": {"name": "m"}, "server": {"args": flags}, "engine": {"adapter": "vllm", "image": None}}


def test_a_server_gets_the_gpus_that_its_flags_spread_it_over() -> None:
    spread = {"tensor-parallel-size": 2, "pipeline-parallel-size": 2, "data-parallel-size": 2}
    assert session_gpus(record(), RESOURCES) == 1
    assert session_gpus(record(**spread), RESOURCES) == 8
    assert session_gpus(record(**{"tensor-parallel-size": 2}), {**RESOURCES, "gpus": 4}) == 4
    assert session_gpus(record(**spread), {**RESOURCES, "gpus": 0}) == 0
    with pytest.raises(UserError, match="tensor-parallel-size"):
        session_gpus(record(**{"tensor-parallel-size": "two"}), RESOURCES)


def test_a_retry_gets_more_time_up_to_what_the_queue_allows() -> None:
    assert [session_runtime_min(RESOURCES, attempt) for attempt in (1, 2, 3)] == [30, 50, 50]
    assert session_runtime_min({**RESOURCES, "max_runtime_min": None}, 3) == 90


def study_config(image: str | None = None) -> dict[str, Any]:
    return {
        "engines": {"mock": {"adapter": "mock", "image": image}},
        "models": {"tiny-opt": {"weights": "synthetic"}},
        "datasets": {"short": {"kind": "random", "requests": 8, "prompt_tokens": 8, "output_tokens": 8}},
        "sweeps": {
            "small": {
                "fixed": {
                    "model": "tiny-opt",
                    "dataset": "short",
                    "batch_cap": [1, 2],
                    "cap_side": "server",
                    "server": {"tensor-parallel-size": 2},
                    "load": {"requests": 4},
                }
            }
        },
        "resources": {"cpus": 6, "mem_mb": 5000, "runtime_min": 45},
    }


def test_plans_and_scripts_are_written_and_nothing_is_submitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a folder; with 'marks'"
    folder.mkdir()
    monkeypatch.chdir(folder)
    site = Site(partition="acc", account="proj", gpu_model="h100", exclusive=True)
    scripts = write_scripts(load_study(study_config()), site, Path("results"))
    assert len(scripts) == 2
    text = scripts[0].read_text()
    asked = [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH")]
    assert {"--partition=acc", "--account=proj", "--gpus=h100:2", "--nodes=1", "--time=45", "--mem=5000M"} < {*asked}
    assert {"--cpus-per-task=6", "--signal=B:TERM@120", "--exclusive"} < {*asked}
    assert (folder / "results" / "plans" / f"{scripts[0].stem}.json").exists()
    assert subprocess.run(["bash", "-n", str(scripts[0])], check=False).returncode == 0
    if shutil.which("shellcheck"):
        assert subprocess.run(["shellcheck", str(scripts[0])], check=False).returncode == 0


def test_a_script_that_is_run_measures_its_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    study = load_study(study_config())
    for key, spec in study.datasets.items():
        save_dataset(tmp_path / "results" / "datasets" / f"{key}.npz", spec, build_dataset(spec))
    for name, model in study.model_folders.items():
        write_synthetic_model(model, tmp_path / "results" / "models" / name)
    script, other = write_scripts(study, Site(), Path("results"))
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "results" / "sessions" / f"{script.stem}.json").exists()
    assert write_scripts(study, Site(), Path("results")) == [other], "a measured session needs no script"


def test_an_image_is_run_by_apptainer_with_the_site_s_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-engine.sif").write_bytes(b"an image")
    study = load_study(study_config(image="my-engine.sif"))
    text = write_scripts(study, Site(binds=("/models",)), Path("results"))[0].read_text()
    assert "apptainer exec --home" in text
    assert "--nv --bind /models my-engine.sif python" in text
    assert f"export APPTAINER_BIND={ENTRY_POINT.parent}" in text
    plain = write_scripts(study, Site(containers=False), Path("results"))[0].read_text()
    assert "apptainer" not in plain
