"""SGLang's adapter: a page that SGLang's own metrics classes wrote, its flags, its key, its log.

`data/sglang_metrics.txt` was made by running the collectors of the sglang 0.5.23 wheel; help texts are left out.
"""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from memgap.engine.adapters import adapter_for
from memgap.engine.base import SCRATCH, Launch
from memgap.engine.prometheus import parse_page
from memgap.engine.sglang import CONFIG_FILE, SglangAdapter
from memgap.errors import UserError
from memgap.host.protocol import HostPlan
from memgap.host.server import EngineServer
from memgap.load.payload import request_body
from memgap.load.records import LoadPlan, Prompt
from memgap.telemetry.histograms import server_latencies
from memgap.workflow import load_study
from tests.support.fake_sglang import VERSION, write_fake_sglang
from tests.support.records import small_config, small_study
from tests.support.sessions import run_session
from tests.support.waiting import LAST_RESORT_S

PAGE = Path(__file__).with_name("data") / "sglang_metrics.txt"
LOG = """[2026-01-01 00:00:00] Load weight end. elapsed=1.20 s, type=X, avail mem=70.10 GB, mem usage=2.50 GB.
[2026-01-01 00:00:01] max_total_num_tokens=5000, chunked_prefill_size=8192, max_prefill_tokens=16384, \
max_running_requests=512, context_len=2048, available_gpu_mem=9.10 GB
"""
INFO = {
    "version": "0.5.23",
    "mem_fraction_static": 0.85,
    "disable_radix_cache": True,
    "api_key": "SECRET",
    "launch_command": "--api-key SECRET",
    "internal_states": [{"x": 1}],
}
ANSWERS: dict[str, tuple[bool, str]] = {}
SEEN: list[tuple[str, str | None]] = []


class Handler(BaseHTTPRequestHandler):
    """Answers with `ANSWERS` by path: whether a key is needed, and the text."""

    def do_GET(self) -> None:
        """Send the answer, 401 without the key where one is needed, or 404."""
        key = self.headers.get("Authorization")
        SEEN.append((self.path, key))
        needs_key, text = ANSWERS.get(self.path, (False, ""))
        allowed = key == "Bearer SECRET" or not needs_key
        self.send_response(404 if self.path not in ANSWERS else 200 if allowed else 401)
        self.end_headers()
        self.wfile.write(text.encode() if allowed else b"")

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    """Return the address of a server of `ANSWERS`."""
    ANSWERS.clear()
    SEEN.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def record(**args: Any) -> dict[str, Any]:
    """Return a server record of the adapter."""
    made = next(iter(small_study().points.values())).record
    return {**made, "server": {**made["server"], "args": args}}


def launched(**args: Any) -> Launch:
    """Return the launch of a server with these flags."""
    return SglangAdapter().launch("python", record(**args), "/models/m", 4321, "SECRET")


def test_a_page_of_its_own_classes_gives_every_column() -> None:
    assert SglangAdapter().metrics_sample(parse_page(PAGE.read_text())) == {
        "num_requests_running": 3.0,
        "num_requests_waiting": 2.0,
        "num_preemptions": 4.0,
        "prompt_tokens": 300.0,
        "generation_tokens": 60.0,
        "prefix_cache_queries": 300.0,
        "prefix_cache_hits": 20.0,
        "kv_cache_usage_fraction": 0.25,
    }


def test_a_page_under_load_of_0_5_17() -> None:
    rank = 'tp_rank="0"'
    page = "\n".join(
        (
            f"sglang:num_running_reqs{{{rank}}} 64.0",
            f"sglang:token_usage{{{rank}}} 0.01",
            f"sglang:full_token_usage{{{rank}}} 0.00745",
            'sglang:prompt_tokens_total{is_streaming="false"} 14.0',
            'sglang:prompt_tokens_total{is_streaming="true"} 10322.0',
            f'sglang:realtime_tokens_total{{mode="prefill_compute",{rank}}} 20630.0',
            f'sglang:realtime_tokens_total{{mode="decode",{rank}}} 39420.0',
        )
    )
    sample = SglangAdapter().metrics_sample(parse_page(page + "\n"))
    assert sample["kv_cache_usage_fraction"] == 0.00745
    assert (sample["prompt_tokens"], sample["decoded_tokens"]) == (10336.0, 39420.0)
    assert (sample["num_preemptions"], sample["prefix_cache_hits"]) == (0.0, 0.0)


def test_other_ranks_and_priorities_are_not_counted_twice() -> None:
    rows = "".join(
        f'sglang:num_running_reqs{{tp_rank="{rank}",priority="{priority}"}} 5.0\n'
        for rank, priority in ((0, ""), (0, "1"), (1, ""))
    )
    assert SglangAdapter().metrics_sample(parse_page(rows))["num_requests_running"] == 5.0


def test_its_histograms_are_found() -> None:
    page = parse_page(PAGE.read_text())
    found = server_latencies({}, page, SglangAdapter.latency_histograms)
    assert found["server_ttft_mean_ms"] == pytest.approx(150.0)
    assert found["server_tpot_mean_ms"] == pytest.approx(15.0)
    assert found["server_e2e_mean_ms"] == pytest.approx(1500.0)
    assert found["server_itl_mean_ms"] == pytest.approx(0.9 / 57 * 1e3)
    assert found["server_queue_mean_ms"] == pytest.approx(422 / 3)


def test_the_launch_names_the_model_and_hides_the_key() -> None:
    launch = launched(**{"max-running-requests": 8, "disable-radix-cache": True, "enable-mixed-chunk": False})
    text = " ".join(launch.argv)
    assert text.startswith(
        f"python -m sglang.launch_server --config {SCRATCH}/{CONFIG_FILE} --host 127.0.0.1 --port 4321"
    )
    assert "--model-path /models/m --served-model-name tiny-opt --dtype bfloat16 --load-format dummy" in text
    assert text.endswith("--disable-radix-cache --max-running-requests 8")
    assert "SECRET" not in text + json.dumps(launch.env)
    assert launch.files == {CONFIG_FILE: 'api-key: "SECRET"\n'}


def test_the_file_with_the_key_is_the_users_alone_and_goes_with_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    script = tmp_path / "server.py"
    script.write_text(
        "import os, stat, sys\n"
        "path = sys.argv[1]\n"
        "print(oct(stat.S_IMODE(os.stat(path).st_mode)), oct(stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode)))\n"
        "print('server_args=' + open(path).read())\n"
    )
    whole = record() | {"engine": {"name": "sglang", "adapter": "sglang"}}
    server = EngineServer(HostPlan(whole, "/m", "python", tmp_path, 20), tmp_path / "log")

    class Adapter(SglangAdapter):
        def launch(self, python: str, server: Any, model_target: str, port: int, api_key: str) -> Launch:
            import sys

            files = super().launch(python, server, model_target, port, api_key).files
            return Launch([sys.executable, str(script), f"{SCRATCH}/{CONFIG_FILE}"], {}, files)

    server.adapter = Adapter()
    with pytest.raises(Exception, match="the server ended"):
        server.start()
    assert "0o600 0o700" in server.log_tail()
    assert 'server_args=api-key: "[API key]"' in server.log_tail()
    assert server.api_key in (tmp_path / "log").read_text()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("memgap-")] == []


def test_facts_come_from_its_endpoints_and_keep_no_secret(url: str) -> None:
    ANSWERS["/metrics"] = (False, PAGE.read_text())
    ANSWERS["/server_info"] = (True, json.dumps(INFO))
    facts = SglangAdapter().facts(url, record(), LOG, "SECRET")
    assert (facts.version, facts.kv_pool_tokens, facts.kv_block_tokens, facts.num_gpu_blocks) == (
        "0.5.23",
        4000,
        16,
        250,
    )
    assert (facts.max_model_len, facts.gpu_memory_utilization) == (2048, 0.85)
    assert (facts.weights_bytes, facts.weights_bytes_source) == (round(2.5 * 2**30), "log")
    assert facts.resolved == {"server_args": {"mem_fraction_static": 0.85, "disable_radix_cache": True}}
    assert "SECRET" not in str(facts)


def test_facts_without_answers_come_from_the_log(url: str) -> None:
    facts = SglangAdapter().facts(url, record(), LOG)
    assert (facts.version, facts.kv_pool_tokens) == (None, 5000)
    assert SglangAdapter().facts(url, record(), "").weights_bytes_source == "architecture"


def test_the_cache_is_emptied_with_the_key(url: str) -> None:
    ANSWERS["/flush_cache?timeout=5"] = (True, "")
    assert SglangAdapter().reset_prefix_cache(url, "SECRET")
    assert not SglangAdapter().reset_prefix_cache(url, "another")
    assert ("/flush_cache?timeout=5", "Bearer SECRET") in SEEN


def test_seats_and_graphs_are_those_of_the_running_server(url: str) -> None:
    graphs = {"decode": {"backend": "full", "max_bs": 256, "bs": [1]}, "prefill": {"backend": "breakable"}}
    states = [{"effective_max_running_requests_per_dp": 4096, "x": 1}]
    ANSWERS["/server_info"] = (False, json.dumps({"cuda_graph_config": graphs, "internal_states": states}))
    ANSWERS["/metrics"] = (False, 'sglang:context_len{tp_rank="0"} 8192.0\n')
    facts = SglangAdapter().facts(url, record(), LOG)
    assert facts.max_model_len == 8192
    assert facts.resolved["server_args"] == {
        "effective_max_running_requests_per_dp": 4096,
        "cuda_graph_decode_backend": "full",
        "cuda_graph_decode_max_bs": 256,
        "cuda_graph_prefill_backend": "breakable",
    }


def test_its_health_check_runs_no_token_and_its_profiler_is_told_the_folder() -> None:
    assert launched().env["SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION"] == "false"
    told = json.loads(SglangAdapter().profile_request(Path("/somewhere")))
    assert told["output_dir"] == "/somewhere"


def test_a_streaming_chat_is_not_asked_for_token_ids() -> None:
    for endpoint, asked in (("completions", True), ("chat", False)):
        plan = LoadPlan("m", "closed", 1, 1, endpoint=endpoint, token_ids=endpoint in SglangAdapter.token_id_endpoints)
        assert ("return_token_ids" in request_body(plan, Prompt(4, None, "text"))) is asked


def test_replicas_divide_a_pool_of_tokens_and_no_share_of_what_is_free() -> None:
    config = small_config(engine="sglang", batch_cap=4, replicas=2, server={"max-total-tokens": 4000})
    config["engines"]["sglang"] = {"adapter": "sglang", "version": "0.5.17"}
    (point,) = load_study(config).points.values()
    assert point.record["server"]["args"] == {"max-total-tokens": 2000}
    config["sweeps"]["small"]["fixed"]["server"] = {"mem-fraction-static": 0.8}
    with pytest.raises(UserError, match="mem-fraction-static is a share of what is free"):
        load_study(config)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("RuntimeError: Not enough memory. Please try to increase --mem-fraction-static. Current value: 0.1", "oom"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", "oom"),
        ("RuntimeError: Decode out of memory. Try to lower your batch size.", "oom"),
        ("ValueError: Loaded weights leave no GPU memory for the KV cache under --mem-fraction-static=0.5.", "oom"),
        (
            "[Errno 98] error while attempting to bind on address ('127.0.0.1', 30000): address already in use",
            "port_in_use",
        ),
        ("ValueError: Port is already in use. dist_init_port=1 port_base=2", "port_in_use"),
        ("sglang serve: error: unrecognized arguments: --max-num-seqs 8", "bad_config"),
        ("ValueError: Config file not found: x.yaml", "bad_config"),
        ("The server is fired up and ready to roll!", None),
    ],
)
def test_its_log_tells_the_failure(line: str, kind: str | None) -> None:
    assert SglangAdapter().failure_kind(f"INFO\n{line}\n") == kind


def test_a_sweep_uses_its_own_flag_names() -> None:
    config = small_config(engine="sglang", batch_cap=4, cap_side="server", server={"context-length": 64})
    config["engines"]["sglang"] = {"adapter": "sglang", "version": "0.5.23"}
    (point,) = load_study(config).points.values()
    assert point.record["server"]["args"] == {"context-length": 64, "max-running-requests": 4}
    assert point.record["engine"]["package"] == "sglang"
    assert point.record["dataset"]["requests"] == 32
    config["sweeps"]["small"]["fixed"]["server"]["max-running-requests"] = 4
    with pytest.raises(UserError, match="the flag max-running-requests is batch_cap"):
        load_study(config)


def test_what_it_calls_a_text() -> None:
    assert (adapter_for("sglang").detokenized_field, adapter_for("vllm").detokenized_field) == ("text", "prompt")


@pytest.mark.parametrize("endpoint", ["completions", "chat"])
def test_a_point_is_measured_through_the_adapter(tmp_path: Path, endpoint: str) -> None:
    load = {"requests": 12, "warmup_requests": 1, "endpoint": endpoint}
    flags = {"max-total-tokens": 4000, "context-length": 64, "disable-radix-cache": True}
    config = small_config(engine="sglang", batch_cap=4, cap_side="server", server=flags, load=load)
    python = str(write_fake_sglang(tmp_path))
    config["engines"] = {
        "sglang": {"adapter": "sglang", "python": python, "version": VERSION, "startup_timeout_s": LAST_RESORT_S}
    }
    point = run_session(load_study(config), tmp_path)
    assert (point["status"], point["verdict"]["verdict"] == "invalid") == ("ok", False)
    assert point["client"]["token_source"] == ("token_ids" if endpoint == "completions" else "usage")
    assert point["engine"]["kv_pool_tokens"] == 4000
    assert point["engine"]["resolved"]["server_args"]["effective_max_running_requests_per_dp"] == 4
    assert point["summary"]["server_output_tokens"] == point["summary"]["output_tokens"] == 96
    assert point["summary"]["preemptions"] == 0
