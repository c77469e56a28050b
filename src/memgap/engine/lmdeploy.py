"""LMDeploy 0.18 with its PyTorch engine, through its OpenAI-compatible server; from the sources of its wheel.

It has no dummy weights (`--empty-init` waits for them from another process), so synthetic models need
`weights: random-file`. Its completions take text, not token ids.
"""

import ast
import json
import re
from collections.abc import Mapping
from typing import Any

from memgap.engine.base import SCRATCH, EngineFacts, FlagNames, Launch, Record
from memgap.engine.capabilities import Capabilities
from memgap.engine.failure import kind_in
from memgap.engine.flags import flag_list, without_false
from memgap.engine.held import held
from memgap.engine.openai import OpenaiAdapter
from memgap.engine.prometheus import Page, total

COLUMNS = {
    "num_requests_running": "lmdeploy:num_requests_running",
    "num_requests_waiting": "lmdeploy:num_requests_waiting",
    "kv_cache_usage_fraction": "lmdeploy:gpu_cache_usage_perc",
    "prompt_tokens": "lmdeploy:prompt_tokens",
    "generation_tokens": "lmdeploy:generation_tokens",
    "prefix_cache_hits": "lmdeploy:cached_tokens",
}
OOM = re.compile(r"CUDA out of memory|OutOfMemoryError|No enough gpu memory", re.IGNORECASE)
PORT_IN_USE = re.compile(r"Address already in use|Errno 98", re.IGNORECASE)
BAD_CONFIG = re.compile(
    r"error: unrecognized arguments|error: argument |error: ambiguous option|AssertionError|ValueError: "
)
CACHE = re.compile(r"Building CacheEngine with config:\s*(CacheConfig\(.*\))")
SETTINGS = re.compile(r"updated backend_config=(PytorchEngineConfig\(.*\))")
FIELD = re.compile(r"\b(\w+)=('[^']*'|[^,()]+)")
RESOLVED = (
    *("max_batch_size", "session_len", "cache_max_entry_count", "block_size", "num_gpu_blocks", "eager_mode"),
    *("max_prefill_token_num", "enable_prefix_caching", "quant_policy", "tp", "dtype"),
)
START = "serve.py"
STARTER = """import json, sys
from pathlib import Path

from lmdeploy.cli import run
from lmdeploy.serve.utils.server_utils import AuthenticationMiddleware as Keys

make = Keys.__init__


def with_open_metrics(self, *args, **kwargs):
    make(self, *args, **kwargs)
    self.skip_prefixes.append("/metrics")


Keys.__init__ = with_open_metrics
sys.argv += ["--api-keys", json.loads(Path(__file__).with_name("key.json").read_text())]

if __name__ == "__main__":
    run()
"""
"""A key is known as a flag only, which every process list would show, so it is added inside; the metrics page, which
is read without a key elsewhere too, is left open.
"""


class LmdeployAdapter(OpenaiAdapter):
    """Starts `lmdeploy serve api_server` and reads its metric names."""

    package = "lmdeploy"
    capabilities = Capabilities(serves=True, reports_kv_usage=True, has_histograms=True)
    flags = FlagNames(
        max_seqs="max-batch-size",
        max_model_len="session-len",
        memory_fraction="cache-max-entry-count",
        fraction_is_of_free=True,
        kv_bytes=None,
        reserved=(
            *("server-name", "server-port", "model-name", "api-keys", "backend", "dtype", "revision", "empty-init"),
            *("model-path", "disable-metrics"),
        ),
        kv_blocks="num-gpu-blocks",
        block_tokens="cache-block-seq-len",
        max_batched_tokens="max-prefill-token-num",
        tensor_parallel="tp",
        data_parallel="dp",
        expert_parallel="ep",
        eager="eager-mode",
        told={
            "max_seqs": ("backend_config", "max_batch_size"),
            "max_batched_tokens": ("backend_config", "max_prefill_token_num"),
            "memory_fraction": ("backend_config", "cache_max_entry_count"),
            "block_tokens": ("backend_config", "block_size"),
            "tensor_parallel": ("backend_config", "tp"),
            "prefix_caching": ("backend_config", "enable_prefix_caching"),
        },
    )
    ready_path = alive_path = "/health"
    takes_token_ids = False
    latency_histograms: Mapping[str, tuple[str, ...]] = {
        "ttft": ("lmdeploy:time_to_first_token_seconds",),
        "itl": ("lmdeploy:iter_token_latency",),
        "tpot": ("lmdeploy:time_per_output_token_seconds",),
        "e2e": ("lmdeploy:e2e_request_latency_seconds",),
        "queue": ("lmdeploy:request_queue_time_seconds",),
        "prefill": ("lmdeploy:request_prefill_time_seconds",),
        "decode": ("lmdeploy:request_decode_time_seconds",),
    }

    def launch(self, python: str, server: Record, model_target: str, port: int, api_key: str) -> Launch:
        """See EngineAdapter. The log is asked for the sizes of the cache, which nothing else tells."""
        model = server["model"]
        argv = [python, f"{SCRATCH}/{START}", "serve", "api_server", model_target, "--backend", "pytorch"]
        argv += ["--server-name", "127.0.0.1", "--server-port", str(port), "--model-name", model["name"]]
        argv += ["--dtype", model["dtype"], "--log-level", "INFO"]
        if model["weights"] == "hub" and model.get("revision"):
            argv += ["--revision", model["revision"]]
        argv += flag_list(without_false(server["server"]["args"]))
        env = {} if model["weights"] == "hub" else {"HF_HUB_OFFLINE": "1"}
        return Launch(argv, {**env, **server["server"]["env"]}, {START: STARTER, "key.json": json.dumps(api_key)})

    def metrics_sample(self, page: Page) -> dict[str, float]:
        """See EngineAdapter."""
        found = {column: total(page, name) for column, name in COLUMNS.items()}
        found["prefix_cache_queries"] = found["prompt_tokens"]
        return {column: value for column, value in found.items() if value is not None}

    def facts(self, base_url: str, server: Record, log: str, api_key: str = "") -> EngineFacts:
        """See EngineAdapter. It tells its version nowhere; all else stands in its log."""
        args = server["server"]["args"]
        model = held(server["model"], self.flags, args)
        facts = EngineFacts(weights_bytes=model.weights_bytes, weights_bytes_source="architecture")
        cache, settings = _fields(CACHE, log), _fields(SETTINGS, log)
        facts.num_gpu_blocks, facts.kv_block_tokens = (
            _whole(cache.get(one)) for one in ("num_gpu_blocks", "block_size")
        )
        if facts.num_gpu_blocks and facts.kv_block_tokens:
            facts.kv_pool_tokens = facts.num_gpu_blocks * facts.kv_block_tokens
            facts.kv_pool_bytes = model.pool_bytes(facts.kv_pool_tokens, int(args.get("tp", 1)))
        facts.max_model_len = _whole(settings.get("session_len"))
        if told := {name: settings[name] for name in RESOLVED if name in settings}:
            facts.resolved = {"backend_config": told}
        return facts

    def reset_prefix_cache(self, base_url: str, api_key: str = "") -> bool:
        """See EngineAdapter; there is no request for it, and the cache is off unless a flag switches it on."""
        return False

    def measures_free_memory(self, server: Record) -> bool:
        """See EngineAdapter; given blocks are not measured."""
        return "num-gpu-blocks" not in server["server"]["args"]

    def failure_kind(self, log: str) -> str | None:
        """See EngineAdapter."""
        return kind_in(log, {"oom": OOM, "port_in_use": PORT_IN_USE, "bad_config": BAD_CONFIG})


def _fields(pattern: re.Pattern[str], log: str) -> dict[str, Any]:
    """Return the fields of a configuration that LMDeploy wrote into its log; empty where it did not."""
    said = pattern.search(log)
    return {name: _value(text) for name, text in FIELD.findall(said[1])} if said else {}


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
