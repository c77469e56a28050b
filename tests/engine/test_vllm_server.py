"""The real engine: vLLM on this machine serves a synthetic model through a whole session."""

import gzip
import json
import subprocess
import sys
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
import yaml

from memgap.config.load import check_config
from memgap.engine.identity import engine_python, engine_record
from memgap.host.protocol import HostPlan
from memgap.host.server import EngineServer
from memgap.load.records import LoadPlan, Prompt
from memgap.load.runner import run
from memgap.loopback import fetch
from memgap.models.synthetic import word
from memgap.study.study import expand_study
from tests.support.processes import arguments
from tests.support.sessions import run_all
from tests.support.waiting import LAST_RESORT_S

REPOSITORY = Path(__file__).resolve().parents[2]

CONFIG: dict[str, Any] = {
    "engines": {"vllm": {"adapter": "vllm"}},
    "models": {"tiny-opt": {"weights": "synthetic", "dtype": "bfloat16"}},
    "datasets": {
        "short": {"kind": "random", "requests": 32, "prompt_tokens": {"min": 20, "max": 60}, "output_tokens": 24},
        "long": {"kind": "random", "requests": 12, "prompt_tokens": 200, "output_tokens": 24},
    },
    "sweeps": {
        "real": {
            "fixed": {
                "model": "tiny-opt",
                "dataset": "short",
                "batch_cap": [1, 2, 4],
                "server": {
                    "max-model-len": 256,
                    "enable-prefix-caching": False,
                    "kv-cache-memory-bytes": 67108864,
                    "enforce-eager": True,  # compiling takes minutes where other tests run beside it
                },
                "load": {"requests": 12},
            },
            "experiments": {"completions": {}, "chat": {"batch_cap": 2, "load": {"endpoint": "chat"}}},
        }
    },
    "restarts": {
        "again": {
            "fixed": {
                "model": "tiny-opt",
                "dataset": "long",
                "batch_cap": 2,
                "server": {"max-model-len": 256, "kv-cache-memory-bytes": 67108864, "enforce-eager": True},
                "load": {"requests": 12},
            }
        }
    },
    "figures": {"fig02": {"sweep": "real"}, "fig03": {"sweep": "real"}, "fig10": {"sweep": "real"}},
    "advisor": {"slo": {"ms": 1000}},
    "collectors": {"interval_s": 0.1},
}

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(
        engine_record("vllm", {"adapter": "vllm", "version": "auto", "image": None})["version"] == "not-installed",
        reason="vLLM is not installed in .venv-engine: `make install`",
    ),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the whole workflow once on the real engine and return its folder."""
    folder = tmp_path_factory.mktemp("real")
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    done = subprocess.run(
        [
            str(Path(sys.executable).parent / "snakemake"),
            *("-j1", "--snakefile", str(REPOSITORY / "Snakefile"), "--directory", str(folder)),
            *("--configfile", str(folder / "config.yaml")),
        ],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def points(folder: Path) -> list[dict[str, Any]]:
    """Return the stored points."""
    stored = [json.loads(path.read_text()) for path in sorted((folder / "results/points").glob("[!.]*/point.json"))]
    return [point for point in stored if "kind" not in point["record"]]


@pytest.fixture(scope="module")
def server(
    folder: Path, points: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EngineServer]:
    """Start a server as a session does, and leave it to the tests."""
    (model,) = (folder / "results/models").iterdir()
    scratch = tmp_path_factory.mktemp("server")
    plan = HostPlan(points[0]["record"], str(model), engine_python("auto"), scratch, 300)
    with EngineServer(plan, scratch / "log") as running:
        running.start()
        yield running


def test_every_point_is_measured(points: list[dict[str, Any]]) -> None:
    assert [point["status"] for point in points] == ["ok"] * 4
    assert all(point["prefix_cache_emptied"] for point in points)
    assert {point["record"]["load"]["endpoint"] for point in points} == {"completions", "chat"}


def test_every_asked_token_came_and_both_sides_agree(points: list[dict[str, Any]]) -> None:
    for point in points:
        summary = point["summary"]
        assert summary["requests_completed"] == 12
        assert summary["output_tokens"] == 12 * 24
        assert summary["server_output_tokens"] == 12 * 24
        assert summary["prompt_tokens"] == summary["server_prompt_tokens"]
        if point["record"]["load"]["endpoint"] == "completions":
            assert point["client"]["token_source"] == "token_ids"


def test_both_sides_time_the_same_requests(points: list[dict[str, Any]]) -> None:
    for summary in (point["summary"] for point in points):
        assert 0 < summary["server_ttft_mean_ms"] <= summary["ttft_mean_ms"]
        assert summary["server_queue_mean_ms"] < summary["server_e2e_mean_ms"] <= summary["e2e_mean_ms"]
        assert summary["server_itl_mean_ms"] == pytest.approx(summary["itl_mean_ms"], rel=0.3)
        assert summary["engine_cpu_mean_cores"] > summary["api_server_cpu_mean_cores"] > 0


def test_counts_agree_so_no_point_is_invalid_for_them(points: list[dict[str, Any]]) -> None:
    counted = {"usage_mismatch", "output_count", "prefix_cache_hits", "failed_requests", "preempted"}
    assert not counted & {reason["check"] for point in points for reason in point["verdict"]["reasons"]}


def test_latencies_are_consistent(points: list[dict[str, Any]]) -> None:
    for summary in (point["summary"] for point in points):
        assert 0 < summary["ttft_mean_ms"] < summary["e2e_mean_ms"]
        assert summary["itl_mean_ms"] == pytest.approx(summary["tpot_mean_ms"], rel=0.2)


def test_the_engine_says_what_it_is(points: list[dict[str, Any]]) -> None:
    for point in points:
        engine = point["engine"]
        assert engine["version"].split("+")[0] == point["record"]["engine"]["version"]
        assert engine["kv_pool_bytes"] == pytest.approx(67108864, rel=0.05)
        assert engine["max_model_len"] == 256
        assert engine["resolved"]["scheduler_config"]["max_num_seqs"] > 0
        assert engine["resolved"]["cache_config"]["enable_prefix_caching"] is False
        assert "api" not in " ".join(point["provenance"]["commands"][0]).replace("api_server", "")


def test_the_cap_holds_and_the_telemetry_shows_it(folder: Path, points: list[dict[str, Any]]) -> None:
    for point in points:
        assert 0 < point["summary"]["max_running_reqs"] <= point["record"]["batch_cap"]
        assert point["summary"]["preemptions"] == 0
        stored = folder / "results/points" / point["key"]
        telemetry = gzip.decompress((stored / "telemetry.csv.gz").read_bytes()).decode()
        assert telemetry.splitlines()[0].startswith("time_s,num_requests_running")
        with np.load(stored / "tokens.npz", allow_pickle=False) as tokens:
            assert int(tokens["tokens"].sum()) == 12 * 24
            assert (tokens["time_s"] >= 0).all()


def test_no_process_is_left(points: list[dict[str, Any]]) -> None:
    assert points
    running = [" ".join(arguments(one)) for one in psutil.process_iter()]
    ours = f"{REPOSITORY}/"  # another checkout's tests may run beside
    assert [line for line in running if "vllm.entrypoints" in line and ours in line] == []


def test_the_real_server_refuses_requests_without_its_key(server: EngineServer) -> None:
    body = json.dumps({"model": "tiny-opt", "prompt": [11, 12], "max_tokens": 1}).encode()

    def status(headers: dict[str, str]) -> int:
        headers = {"Content-Type": "application/json", **headers}
        try:
            return fetch(f"{server.url}/v1/completions", LAST_RESORT_S, body, headers)[0]
        except urllib.error.HTTPError as error:
            return error.code

    assert status({}) == 401
    assert status({"Authorization": "Bearer wrong"}) == 401
    assert status({"Authorization": f"Bearer {server.api_key}"}) == 200
    assert all(server.api_key not in " ".join(arguments(one)) for one in psutil.process_iter())
    listens = {one.laddr.ip for one in psutil.Process(server.pid).net_connections("tcp") if one.status == "LISTEN"}
    assert listens <= {"127.0.0.1"}
    assert server.api_key not in server.log_tail(10_000)


def test_choices_texts_and_whole_replies_of_the_real_server(server: EngineServer) -> None:
    ids = [11 + number for number in range(40)]
    asked: list[dict[str, Any]] = [{"samples": 3, "temperature": 1.0}, {"stream": False}, {"prompt_form": "text"}]
    for more in asked:
        plan = LoadPlan("tiny-opt", "closed", 4, concurrency=2, api_key=server.api_key, **more)
        text = " ".join(map(word, ids))
        prompt = Prompt(12, None, text, prompt_tokens=40) if "prompt_form" in more else Prompt(12, ids)
        result = run(plan, [prompt] * 4, [server.url])
        assert [one.error for one in result.results] == [None] * 4
        assert all(one.prompt_tokens_server == 40 for one in result.results)
        wanted = 12 * plan.samples
        assert all(one.output_tokens_seen == one.output_tokens_server == wanted for one in result.results)
        assert all(one.choices == plan.samples for one in result.results)


def test_a_server_that_is_there_is_measured_by_its_url(
    server: EngineServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THE_KEY", server.api_key)
    there = {
        "engines": {"there": {"adapter": "vllm"}},
        "datasets": {"words": {"kind": "random", "requests": 16, "prompt_tokens": 12, "output_tokens": 24}},
        "endpoints": {
            "there": {
                "key_variable": "THE_KEY",
                "fixed": {
                    "url": server.url,
                    "dataset": "words",
                    "batch_cap": 2,
                    "load": {"requests": 12, "endpoint": "completions"},
                },
            }
        },
        "collectors": {"interval_s": 0.1},
    }
    run_all(expand_study(check_config(there)), tmp_path)
    (stored,) = (tmp_path / "points").glob("[!.]*/point.json")
    point = json.loads(stored.read_text())
    assert point["status"] == "ok", point["error"]
    assert server.alive
    assert point["engine"]["served_model"] == "tiny-opt"
    assert point["engine"]["max_model_len"] == 256
    assert point["engine"]["version"]
    assert point["engine"]["kv_pool_tokens"] is None
    assert point["summary"]["output_tokens"] == point["summary"]["server_output_tokens"]
    assert point["summary"]["server_ttft_mean_ms"] <= point["summary"]["ttft_mean_ms"]


def test_a_restart_tells_both_starts_by_phase_and_finds_the_prompts_again(folder: Path) -> None:
    table = pd.read_csv(folder / "results/tables/again.restart.csv").set_index("window")
    assert list(table.index) == ["before", "cold", "warm"]
    assert (table["requests_completed"] == 12).all()
    assert table.loc["cold", "prefix_hit_fraction"] < table.loc["warm", "prefix_hit_fraction"]
    phases = pd.read_csv(folder / "results/tables/again.startup.csv")
    told = {start: rows["phase"].tolist() for start, rows in phases.groupby("start")}
    assert told["first"] == ["process", "import", "weights", "ready"], "with enforce-eager nothing is compiled"
    assert told["again"] == [*told["first"], "first_token"]
    assert (phases["duration_s"] > 0).all()
    assert (folder / "figures/again.restart.pdf").read_bytes().startswith(b"%PDF")


def test_figures_and_advice_are_made(folder: Path) -> None:
    for name in ("fig02", "fig03", "fig10"):
        assert (folder / f"figures/{name}.pdf").read_bytes().startswith(b"%PDF")
    assert (folder / "results/advisor/tiny-opt.yaml").exists()
