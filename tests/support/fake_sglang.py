"""A stand-in for SGLang: the simulated engine behind SGLang's flags, paths and metric names, as 0.5.17 has them."""

import sys
from pathlib import Path

VERSION = "0.5.17"
SERVER = """
import argparse, json, re, sys
from pathlib import Path

import yaml

from memgap.mock_server import protocol
from memgap.mock_server.options import parse_options
from memgap.mock_server.server import run_server

parser = argparse.ArgumentParser(prog="sglang serve", allow_abbrev=False)
for name in ("config", "host", "port", "model-path", "served-model-name", "dtype", "load-format"):
    parser.add_argument("--" + name)
for name, default in (("max-running-requests", 64), ("context-length", 2048), ("max-total-tokens", 20000)):
    parser.add_argument("--" + name, type=int, default=default)
for name in ("chunked-prefill-size", "stream-interval", "tokenizer-worker-num", "sampling-backend", "grammar-backend"):
    parser.add_argument("--" + name)
for name in ("enable-metrics", "disable-radix-cache"):
    parser.add_argument("--" + name, action="store_true")
given = parser.parse_args()
key = yaml.safe_load(Path(given.config).read_text())["api-key"]
print(f"server_args=ServerArgs(api_key='{key}')", flush=True)
NAMES = {
    "num_requests_running": "num_running_reqs",
    "num_requests_waiting": "num_queue_reqs",
    "kv_cache_usage_perc": "full_token_usage",
    "request_queue_time_seconds": "queue_time_seconds",
}
ABSENT = re.compile(r"preemptions|prefix_cache|cache_config|request_(time|prefill|decode|inference)")
vllm_page, answer = protocol.metrics_page, protocol.Connection._answer


def page(*args):
    lines = [line for line in vllm_page(*args).decode().splitlines() if not ABSENT.search(line)]
    text = "\\n".join(lines).replace("vllm:", "sglang:")
    for theirs, ours in NAMES.items():
        text = text.replace("sglang:" + theirs, "sglang:" + ours)
    made = args[0].counters.generation_tokens
    text += f'\\nsglang:realtime_tokens_total{{mode="decode",tp_rank="0"}} {made}.0'
    for name, value in (("max_total_num_tokens", given.max_total_tokens), ("page_size", 1)):
        text += f'\\nsglang:{name}{{tp_rank="0"}} {value}.0'
    return (text + f'\\nsglang:context_len{{tp_rank="0"}} {given.context_length}.0\\n').encode()


def answered(self, request):
    path, headers, body = request.path.partition("?")[0], request.headers, request.body
    if path == "/v1/chat/completions" and b'"return_token_ids":true' in body:
        self._error(400, "return_token_ids is not supported with streaming on /v1/chat/completions.")
    elif path in ("/server_info", "/flush_cache") and not self._may(headers):
        self.send_json(401, {"error": "Unauthorized"})
    elif path == "/server_info":
        states = [{"effective_max_running_requests_per_dp": given.max_running_requests}]
        told = {"version": "VERSION", "api_key": key, "internal_states": states, "mem_fraction_static": 0.83}
        self.send_json(200, told | {"disable_radix_cache": given.disable_radix_cache, "kv_cache_dtype": "auto"})
    elif path in ("/flush_cache", "/health_generate"):
        self._send(200, b"", b"text/plain")
    else:
        answer(self, request)
        return
    self.finished()


protocol.metrics_page, protocol.Connection._answer = page, answered
flags = ["--host", given.host, "--port", given.port, "--model", given.served_model_name, "--api-key", key]
flags += ["--max-num-seqs", str(given.max_running_requests), "--max-model-len", str(given.context_length)]
flags += ["--kv-tokens", str(given.max_total_tokens), "--block-size", "1", "--step-base-ms", "1"]
sys.exit(run_server(parse_options(flags)))
"""


def write_fake_sglang(folder: Path) -> Path:
    """Write the package and an interpreter that has it into a folder; returns the interpreter's path."""
    package = folder / "site" / "sglang"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "launch_server.py").write_text(SERVER.replace("VERSION", VERSION))
    python = folder / "sglang-python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{package.parent}:$PYTHONPATH" exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return python
