"""The real engine in process: vLLM on this machine runs batches of a synthetic model, prefill first."""

import csv
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from memgap.engine.identity import engine_python, engine_record
from memgap.kinds.offline.summary import summarize_steps
from memgap.models import write_synthetic_model
from memgap.models.registry import resolve_model
from tests.support.waiting import LAST_RESORT_S

SOURCE = Path(__file__).resolve().parents[2] / "src"
BUDGET, PROMPT, OUTPUT = 64, 80, 20
BATCHES = {"one": 1, "four": 4, "too-many": 12, "after": 2}

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(
        engine_record("vllm", {"adapter": "vllm", "version": "auto", "image": None})["version"] == "not-installed",
        reason="vLLM is not installed in .venv-engine: `make install`",
    ),
]

Rows = list[dict[str, Any]]


def run_worker(folder: Path, *flags: str) -> Path:
    """Measure all batches in one engine whose KV cache holds about ten requests; returns the worker's folder."""
    model = resolve_model("tiny-opt", {"tiny-opt": {"weights": "synthetic", "dtype": "bfloat16"}})
    write_synthetic_model(model, folder / "model")
    shared: dict[str, Any] = {
        "temperature": 0.0,
        "warmup_steps": 2,
        "seed": 0,
    }
    shared |= {"detokenize": True, "outputs": "final", "window": None}
    spec = {
        "flags": [
            *("--model", str(folder / "model"), "--dtype", "bfloat16", "--load-format", "dummy"),
            *("--max-model-len", "128", "--max-num-batched-tokens", str(BUDGET), "--max-num-seqs", "16"),
            # 8 KiB a token, 4 layers of 512 in two bytes: 1000 tokens
            *("--kv-cache-memory-bytes", str(1000 * 8192), "--no-enable-prefix-caching", "--enforce-eager", *flags),
            *("--block-size", "32"),
        ],
        "profiler": None,
        "runs": [
            {"key": key, "batch": batch, "lengths": [[PROMPT, OUTPUT]] * batch, **shared}
            for key, batch in BATCHES.items()
        ],
    }
    (folder / "spec.json").write_text(json.dumps(spec))
    (folder / "package").mkdir()
    (folder / "package/memgap").symlink_to(SOURCE / "memgap", target_is_directory=True)
    environment = {**os.environ, "PYTHONPATH": str(folder / "package"), "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
    argv = [engine_python("auto"), "-m", "memgap.kinds.offline.worker"]
    argv += ["--spec", str(folder / "spec.json"), "--out", str(folder / "out")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=LAST_RESORT_S, env=environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder / "out"


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run a worker with synchronous scheduling once."""
    return run_worker(tmp_path_factory.mktemp("offline"), "--no-async-scheduling")


def steps(out: Path, key: str, phase: str) -> Rows:
    """Return a batch's steps of a phase, numbers as numbers."""
    with (out / key / "steps.csv").open(newline="") as file:
        rows = [
            {name: value if name == "phase" else float(value) for name, value in row.items()}
            for row in csv.DictReader(file)
        ]
    return [row for row in rows if row["phase"] == phase]


def outcome(out: Path, key: str) -> dict[str, Any]:
    """Return what came of a batch."""
    found: dict[str, Any] = json.loads((out / key / "run.json").read_text())
    return found


def check_phases(out: Path) -> None:
    """Assert that the batches that fit ran as phases: prefill first, then all decode together."""
    for key in ("one", "four", "after"):
        batch = BATCHES[key]
        assert outcome(out, key)["status"] == "ok"
        prefill, decode = steps(out, key, "prefill"), steps(out, key, "decode")
        assert len(prefill) == -(-PROMPT * batch // BUDGET)
        assert sum(one["tokens"] for one in prefill) == PROMPT * batch
        assert all(one["prefill_tokens"] == one["tokens"] <= BUDGET for one in prefill)
        assert [one["tokens"] for one in decode] == [batch] * (OUTPUT - 1)
        assert [one["running"] for one in decode] == [batch] * (OUTPUT - 1)
        assert {one["prefill_tokens"] for one in decode} == {0}
        assert max(one["start_s"] for one in prefill) < min(one["start_s"] for one in decode)
        assert [one["step"] for one in decode] == list(range(OUTPUT - 1))


def test_the_phases_are_apart_and_every_token_is_counted(out: Path) -> None:
    check_phases(out)


def test_the_kv_cache_fills(out: Path) -> None:
    for key in ("one", "four"):
        usage = [one["kv_cache_usage_fraction"] for one in (*steps(out, key, "prefill"), *steps(out, key, "decode"))]
        while usage[-1] == 0:  # the last step's requests are gone when it is read
            usage.pop()
        assert len(usage) >= OUTPUT - 1
        assert usage == sorted(usage)
        assert 0 < usage[0] < usage[-1] < 1
    assert steps(out, "four", "decode")[0]["kv_cache_usage_fraction"] == pytest.approx(
        4 * steps(out, "one", "decode")[0]["kv_cache_usage_fraction"]
    )


def test_the_parts_account_for_a_steps_time(out: Path) -> None:
    for key in ("one", "four"):
        decode = steps(out, key, "decode")
        wall_s = sum(one["wall_s"] for one in decode)
        assert all(one["wall_s"] > 0 for one in decode)
        assert 0 <= sum(one["rest_s"] for one in decode) < 0.5 * wall_s
        assert 0 < sum(one["gpu_s"] for one in decode) <= wall_s
        for part in ("schedule_s", "prepare_s", "update_s", "detokenize_s", "output_s"):
            assert 0 < sum(one[part] for one in decode) < wall_s
        run = outcome(out, key)
        took_s = run["end_monotonic_s"] - run["prefill_end_monotonic_s"]
        assert 0.5 * took_s < wall_s <= 1.001 * took_s, "steps do not overlap, give or take the readings of the clock"


def test_a_batch_that_does_not_fit_says_so_and_the_next_one_runs(out: Path) -> None:
    run = outcome(out, "too-many")
    assert run["status"] == "kv_exhausted"
    assert "the KV cache" in run["message"]
    assert "of 12 requests" in run["message"]
    assert outcome(out, "after")["status"] == "ok"


def test_the_engine_says_what_it_is(out: Path) -> None:
    engine = json.loads((out / "engine.json").read_text())
    assert engine["async_scheduling"] is False
    assert engine["max_num_batched_tokens"] == BUDGET
    assert engine["kv_pool_tokens"] == engine["num_gpu_blocks"] * engine["kv_block_tokens"]
    assert 12 * PROMPT // 2 < engine["kv_pool_tokens"] < 12 * (PROMPT + OUTPUT)
    assert engine["start_s"] > 0


def test_the_summary_is_of_these_steps(out: Path) -> None:
    with (out / "four/steps.csv").open(newline="") as file:
        summary = summarize_steps(list(csv.DictReader(file)), {}, [(PROMPT, OUTPUT)])
    assert summary["prefill_steps"] == 5
    assert summary["decode_steps"] == OUTPUT - 1
    assert summary["context_mean_tokens"] == PROMPT + OUTPUT / 2
    assert summary["decode_throughput_tok_s"] * summary["decode_step_mean_ms"] == pytest.approx(4000)
