"""Real configurations, damaged: they expand, or one sentence says what is wrong."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from memgap.canonical import canonical_json
from memgap.config.files import read_config_files
from memgap.config.load import check_config
from memgap.points.point import check_same_server
from memgap.script import run_script, script_parser
from memgap.study.plan import requested_plan
from memgap.workflow import load_study

from .mutate import damaged, fuzz, garbled, tolerates

REPOSITORY = Path(__file__).resolve().parents[2]
FILES = sorted((REPOSITORY / "config").glob("*.yaml"))
FULL: dict[str, Any] = {
    "engines": {
        "mock": {"adapter": "mock", "image": None, "port": 8000},
        "vllm": {"adapter": "vllm", "version": "0.32.0"},
    },
    "models": {
        "own": {
            "weights": "synthetic",
            "dtype": "bfloat16",
            "base": "opt-1.3b",
            "architecture": {"layers": 2, "hidden_size": 64, "heads": 4, "ffn_size": 128},
        },
        "hub": {"base": "opt-1.3b", "weights": "hub", "trust_remote_code": True},
    },
    "datasets": {
        "random": {"kind": "random", "requests": 64, "prompt_tokens": {"min": 4, "max": 8}, "output_tokens": 8},
        "like": {"kind": "sharegpt-like", "requests": 20, "mean_prompt_tokens": 50, "max_total_tokens": 512},
        "mixed": {
            "kind": "mixed",
            "parts": [
                {"weight": 1, "prompt_tokens": 8, "output_tokens": 8},
                {"weight": 2.5, "prompt_tokens": 9, "output_tokens": 4},
            ],
        },
        "turns": {"kind": "multi-turn", "requests": 8, "turns": 2, "prompt_tokens": 8, "output_tokens": 8},
        "real": {"kind": "sharegpt", "path": "a.json", "tokenizer": {"hub_id": "a/b", "revision": "main"}},
        "trace": {"kind": "trace", "path": "config/traces/example.csv", "speed": 2.0, "requests": 4},
    },
    "sweeps": {
        "one": {
            "fixed": {
                "engine": "mock",
                "model": ["own", "hub"],
                "dataset": "random",
                "batch_cap": [1, 2],
                "replicas": 2,
                "mps": True,
                "server": {"max-num-seqs": 8, "compilation-config": {"mode": 3}, "enforce-eager": [True, False]},
                "env": {"OMP_NUM_THREADS": ["1", "2"]},
                "load": {"requests_per_slot": 2, "min_requests": 4, "max_requests": 16, "seed": 1},
                "repeats": 2,
            },
            "zip": [["model", "env.OMP_NUM_THREADS"]],
            "stop": {"repeats": {"interval_fraction": 0.05, "least": 2}, "search": "b_opt"},
        },
        "two": {
            "fixed": {"engine": "mock", "model": "own", "dataset": "turns", "batch_cap": 2, "cap_side": "server"},
            "experiments": {
                "poisson": {"load": {"requests": 4, "arrival": "poisson", "rate_req_s": 2.0, "think_time_s": 1}},
                "ramp": {"load": {"requests": 4, "arrival": "ramp", "rate_req_s": 2.0, "rate_end_req_s": 9}},
                "traced": {"dataset": "trace", "load": {"requests": 4, "arrival": "trace"}},
            },
        },
    },
    "offline": {
        "study": {
            "fixed": {
                "engine": "vllm",
                "model": "own",
                "batch": [1, 2],
                "prompt_tokens": 8,
                "output_tokens": 16,
                "server": {"async-scheduling": False},
                "profiler": {"source": "ncu", "metrics": ["light"], "kernels": "flash", "decode_steps": 1},
            }
        }
    },
    "slos": {"chat": {"ttft_ms": 100, "tpot_ms": 50}},
    "figures": {
        "fig02": {"sweep": "one"},
        "fig01": {"study": "study"},
        "timeshare": {"study": "study", "sweep": "two"},
    },
    "tables": {
        "tab04": {"online": "one", "replication": "two"},
        "roofline_error": {"sweeps": ["one"], "studies": ["study"]},
    },
    "predictions": {"p": {"models": ["own"], "gpus": ["H200"], "batch": [1], "context_tokens": 100}},
    "fleets": {
        "f": {
            "sweeps": ["one"],
            "gpus": [{"name": "H200", "count": 2, "memory_gib": 141}],
            "models": {"own": {"demand_tok_s": 100, "slo": {"latency": "itl_mean_ms", "ms": 30}}},
        }
    },
    "advisor": {"slo": {"multiple": 2.0}, "verify": True},
    "collectors": {"interval_s": 0.25},
    "resources": {"gpus": 1, "mem_mb": 1000},
    "remeasure": ["0123456789abcdef"],
}
BASES = [FULL, *(yaml.safe_load(path.read_text(encoding="utf-8")) for path in FILES)]


def expand_and_use(config: dict[str, Any]) -> None:
    """Do with a configuration what the Snakefile and its jobs do before anything is measured."""
    study = load_study(config)
    assert json.loads(json.dumps(study.config, allow_nan=False)) == study.config
    for session in study.sessions:
        check_same_server(study.session_plan(session))
        canonical_json(study.session_plan(session))
    for sweep in study.sweeps:
        canonical_json(study.group_plan(sweep))
        for model in study.models_of(sweep):
            study.advised_sweep(model)


def test_the_whole_configuration_expands() -> None:
    expand_and_use(FULL)


@pytest.mark.parametrize("number", range(len(BASES)), ids=["every key", *(path.name for path in FILES)])
def test_a_damaged_configuration_is_one_sentence(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)

    @fuzz(200 if number == 0 else 12)
    @given(damaged(BASES[number]))
    def check(config: Any) -> None:
        tolerates(lambda: expand_and_use(config))

    check()


@fuzz(40)
@given(st.sampled_from(FILES[:3]).flatmap(lambda path: garbled(path.read_bytes())))
def test_a_garbled_file_is_one_sentence(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "garbled.yaml"
    path.write_bytes(data)
    tolerates(lambda: check_config(read_config_files([path])))


@fuzz(40)
@given(garbled(json.dumps({"session": "s", "points": [], "options": {}}).encode()))
def test_a_garbled_plan_is_one_sentence(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "plan.json"
    path.write_bytes(data)
    options = script_parser("").parse_args(["--plan", str(path)])
    assert run_script(lambda: requested_plan(options, "session") and None) in (0, 2)


@pytest.mark.parametrize(
    "text",
    [
        "sweeps: &a {b: *a}\n",
        "sweeps: !!python/object/apply:os.system [id]\n",
        "sweeps: {small: {fixed: {batch_cap: 1e400}}}\n",
        "? [a, b]\n: 1\n",
        "sweeps: " + "[" * 3000 + "\n",
        "sweeps: {x: 2024-13-45}\n",
        "sweeps:\n  \0\n",
        "a: 1\n---\nb: 2\n",
    ],
    ids=["alias of itself", "python object", "huge", "list as key", "deep", "no date", "NUL", "two documents"],
)
def test_the_command_line_says_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "memgap", "list", "--configfile", str(tmp_path / "config.yaml")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith("memgap: ") and done.stderr.count("\n") == 1, done.stderr
