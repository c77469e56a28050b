"""What a server inherits of the environment is kept beside its point, and other values make the point stale."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from memgap.host.inherited import differing, inherited, inherited_text
from tests.support.records import small_study
from tests.support.sessions import run_all


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what this shell happens to have of such variables."""
    for name in inherited(os.environ, {}):
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    "name",
    [
        "OMP_NUM_THREADS",
        "VLLM_ATTENTION_BACKEND",
        "NCCL_ALGO",
        "SGLANG_X",
        "PYTORCH_CUDA_ALLOC_CONF",
        "TRITON_X",
        "LD_PRELOAD",
        "CUDA_LAUNCH_BLOCKING",
        "CUDA_VISIBLE_DEVICES",
        "TOKENIZERS_PARALLELISM",
        "MKL_NUM_THREADS",
        "MALLOC_ARENA_MAX",
        "RAYON_NUM_THREADS",
        "TBB_NUM_THREADS",
    ],
)
def test_variables_that_change_results_are_kept(name: str) -> None:
    assert inherited({name: "1", "PATH": "/bin"}, {}) == {name: "1"}
    assert inherited({name: "1"}, {name: "2"}) == {}, "the point sets it itself"


@pytest.mark.parametrize(
    "name",
    [
        "PATH",
        "HOME",
        "VLLM_API_KEY",
        "VLLM_CACHE_ROOT",
        "CUDA_HOME",
        "CUDA_MPS_PIPE_DIRECTORY",
        "CUDA_VERSION",
        "NCCL_DEBUG",
        "VLLM_LOGGING_LEVEL",
        "ONEDNN_VERBOSE",
        "OMP_DISPLAY_ENV",
        "VLLM_HOST_IP",
        "TORCH_HOME",
        "TRITON_CACHE_DIR",
        "RAY_ADDRESS",
        "MEMGAP_SITE",
        "SOME_OMP_X",
    ],
)
def test_others_are_not(name: str) -> None:
    assert inherited({name: "1"}, {}) == {}


def test_values_hold_no_secret_and_no_place() -> None:
    token = "hf_" + "AbCdEfGhIjKlMnOpQrSt"
    kept = inherited({"LD_PRELOAD": "/opt/me/libjemalloc.so:/x/y.so", "VLLM_X": token, "NCCL_Y": "x" * 999}, {})
    assert kept["LD_PRELOAD"] == "libjemalloc.so:y.so" and token not in kept["VLLM_X"] and len(kept["NCCL_Y"]) == 200


@pytest.mark.parametrize(
    ("before", "now", "adapter", "names"),
    [
        ({}, {}, "vllm", []),
        ({"OMP_NUM_THREADS": "1"}, {"OMP_NUM_THREADS": "1"}, "vllm", []),
        ({"OMP_NUM_THREADS": "1"}, {}, "vllm", ["OMP_NUM_THREADS"]),
        ({}, {"NCCL_ALGO": "Ring", "VLLM_X": "1"}, "vllm", ["NCCL_ALGO", "VLLM_X"]),
        ({}, {"NCCL_ALGO": "Ring", "VLLM_X": "1"}, "sglang", ["NCCL_ALGO"]),
        ({}, {"SGLANG_X": "1", "SGL_Y": "2"}, "vllm", []),
        ({"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "3"}, "vllm", []),
        ({"GPU_DEVICE_ORDINAL": "0", "ROCR_VISIBLE_DEVICES": "0"}, {"GPU_DEVICE_ORDINAL": "1"}, "vllm", []),
    ],
)
def test_what_matters_differs(before: dict[str, str], now: dict[str, str], adapter: str, names: list[str]) -> None:
    assert differing(before, now, adapter) == names


def test_the_workflow_looks_again_only_where_something_is_set() -> None:
    assert inherited_text({"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "0"}) == ""
    assert inherited_text({"OMP_NUM_THREADS": "4"}) == '{"OMP_NUM_THREADS":"4"}'


def measured(folder: Path, **changes: Any) -> tuple[dict[str, Any], str]:
    said = run_all(small_study(batch_cap=1, load={"requests": 2, "warmup_requests": 1}, **changes), folder / "results")
    (path,) = folder.rglob("point.json")
    return json.loads(path.read_text()), said


def test_a_point_is_stale_with_other_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = measured(tmp_path)
    assert first["provenance"]["environment"] == {}
    assert "in the store already" in measured(tmp_path)[1]

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("VLLM_ATTENTION_BACKEND", "TRITON_ATTN")
    second, said = measured(tmp_path)
    assert "other values of OMP_NUM_THREADS, VLLM_ATTENTION_BACKEND in the environment: they are measured again" in said
    assert second["key"] == first["key"] and second["record"] == first["record"]
    assert second["provenance"]["environment"] == {"OMP_NUM_THREADS": "1", "VLLM_ATTENTION_BACKEND": "TRITON_ATTN"}
    assert "in the store already" in measured(tmp_path)[1]

    monkeypatch.delenv("OMP_NUM_THREADS")
    assert "other values of OMP_NUM_THREADS in" in measured(tmp_path)[1]


def test_a_point_from_before_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured(tmp_path)
    (path,) = tmp_path.rglob("point.json")
    point = json.loads(path.read_text())
    del point["provenance"]["environment"]
    path.write_text(json.dumps(point))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert "in the store already" in measured(tmp_path)[1]
