"""Real transformers and real vLLM on this machine, through the whole comparison."""

import gzip
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from memgap.engine.identity import NOT_INSTALLED, engine_record
from memgap.kinds.static.point import is_static

REPOSITORY = Path(__file__).resolve().parents[2]
FIGURES = ("static_batching", "memory_over_time", "kv_waste")
TOKEN_BYTES = 2 * 4 * 512 * 2
"""Keys and values of tiny-opt: 4 layers of 512 in two bytes."""

CONFIG: dict[str, Any] = {
    "engines": {"vllm": {"adapter": "vllm"}, "hf": {"adapter": "hf"}},
    "models": {"tiny-opt": {"weights": "synthetic", "dtype": "bfloat16"}},
    "datasets": {
        "chat": {
            "kind": "random",
            "requests": 8,
            "prompt_tokens": {"min": 20, "max": 60},
            "output_tokens": {"min": 4, "max": 24},
        }
    },
    "sweeps": {
        "both": {
            "fixed": {"model": "tiny-opt", "dataset": "chat", "batch_cap": [2, 4], "load": {"requests": 6}},
            "experiments": {
                "continuous": {
                    "engine": "vllm",
                    "server": {
                        "max-model-len": 128,
                        "enable-prefix-caching": False,
                        "kv-cache-memory-bytes": 16777216,
                        "block-size": 32,
                        "enforce-eager": True,
                    },
                },
                "static": {"engine": "hf", "server": {"max-model-len": 128, "threads": 1}},
            },
        }
    },
    "figures": {name: {"comparison": "both"} for name in FIGURES},
    "collectors": {"interval_s": 0.05},
}

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(
        engine_record("hf", {"adapter": "hf", "version": "auto", "image": None})["version"] == NOT_INSTALLED,
        reason="transformers and vLLM are not installed in .venv-engine: `make install`",
    ),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the comparison once and return its folder."""
    folder = tmp_path_factory.mktemp("comparison")
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    done = subprocess.run(
        [
            str(Path(sys.executable).parent / "snakemake"),
            *("-j1", "hf_vs_vllm", "--snakefile", str(REPOSITORY / "Snakefile"), "--directory", str(folder)),
            *("--configfile", str(folder / "config.yaml")),
        ],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def points(folder: Path, batch: int = 4) -> dict[bool, tuple[Path, dict[str, Any]]]:
    """Return the folder and the point of static batches (true) and of the server (false) at a batch."""
    found = {}
    for path in (folder / "results/points").glob("[!.]*/point.json"):
        point = json.loads(path.read_text())
        if point["record"]["batch_cap"] == batch:
            found[is_static(point["record"])] = (path.parent, point)
    return found


def table(path: Path) -> pd.DataFrame:
    """Return a gzipped table."""
    return pd.read_csv(io.BytesIO(gzip.decompress(path.read_bytes())))


def test_both_engines_made_every_token_of_the_same_requests(folder: Path) -> None:
    both = points(folder)
    assert {point["status"] for _, point in both.values()} == {"ok"}
    requests = {static: table(where / "requests.csv.gz") for static, (where, _) in both.items()}
    for column in ("prompt_tokens_asked", "output_tokens_asked"):
        assert list(requests[True][column]) == list(requests[False][column])
    assert list(requests[True]["output_tokens_seen"]) == list(requests[True]["output_tokens_asked"])
    assert both[True][1]["summary"]["output_tokens"] == both[False][1]["summary"]["output_tokens"]
    assert both[True][1]["record"]["dataset"]["key"] == both[False][1]["record"]["dataset"]["key"]


def test_the_cache_that_transformers_held_is_what_the_lengths_say(folder: Path) -> None:
    where, point = points(folder)[True]
    kv = pd.read_csv(folder / "results/tables/both.kv.csv")
    own = kv[kv["is_own"] & (kv["layout"] == "static-dynamic")]
    assert len(own) == 2
    assert (own["measured_held_token_steps"] == own["held_token_steps"]).all()
    steps, batches = table(where / "steps.csv.gz"), table(where / "batches.csv.gz")
    assert list(batches["requests"]) == [4, 2]
    rows = steps["batch"].map(batches["requests"])
    assert (steps["kv_bytes"] == steps["kv_slots"] * rows * TOKEN_BYTES).all()
    assert steps["time_s"].is_monotonic_increasing
    assert list(steps.groupby("batch").size()) == list(batches["generated_tokens"])
    assert point["engine"]["weights_bytes_source"] == "tensors"
    assert point["summary"]["computed_output_tokens"] == (batches["requests"] * batches["generated_tokens"]).sum()


def test_what_the_paged_pool_wasted_is_near_what_blocks_waste(folder: Path) -> None:
    kv = pd.read_csv(folder / "results/tables/both.kv.csv")
    own, static = kv[kv["is_own"] & (kv["layout"] == "paged")], kv[kv["layout"] == "static-dynamic"]
    assert set(kv["block_tokens"]) == {32}
    assert own["wasted_fraction"].between(0, 0.5).all()
    assert own["wasted_fraction"].max() < static["wasted_fraction"].min()


def test_memory_is_known_from_the_start_on(folder: Path) -> None:
    for where, point in points(folder).values():
        start = table(where / "startup.csv.gz")
        assert len(start) > 5
        assert start["rss_bytes"].max() > 1e8
        assert start["time_s"].max() <= point["engine"]["start_s"] + 1.0
    memory = pd.read_csv(folder / "results/tables/both.memory.csv")
    served = memory[memory["phase"] == "inference"].dropna(subset=["kv_held_bytes"])
    assert set(served["engine"]) == set(memory["engine"])
    assert (served["kv_used_bytes"] <= served["kv_held_bytes"]).all()
    assert (served["weights_bytes"] > 3e7).all()


def test_the_figures_are_there_and_a_second_run_measures_nothing(folder: Path) -> None:
    for name in FIGURES:
        for kind in ("pdf", "png", "csv"):
            assert (folder / f"figures/{name}.{kind}").stat().st_size > 100
    engines = pd.read_csv(folder / "figures/static_batching.csv")
    assert len(engines) == 4
    assert engines["useful_fraction"].max() == 1
    assert engines["useful_fraction"].min() < 1
