"""vLLM 0.26 to 0.33, V1 engine, through its OpenAI-compatible server."""

import http.client
import json
import re
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memgap.canonical import canonical_json
from memgap.engine.base import EngineFacts, FlagNames, Launch, Record
from memgap.engine.capabilities import Capabilities
from memgap.engine.flags import flag_list, model_flags
from memgap.engine.held import held
from memgap.telemetry.prometheus import Page, labels_of, largest, parse_page, total

GAUGES = {
    "num_requests_running": "vllm:num_requests_running",
    "num_requests_waiting": "vllm:num_requests_waiting",
}
COUNTERS = {
    "num_preemptions": "vllm:num_preemptions",
    "prompt_tokens": "vllm:prompt_tokens",
    "generation_tokens": "vllm:generation_tokens",
    "prefix_cache_queries": "vllm:prefix_cache_queries",
    "prefix_cache_hits": "vllm:prefix_cache_hits",
}
KV_USAGE = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
LATENCY_HISTOGRAMS = {
    "ttft": ("vllm:time_to_first_token_seconds",),
    "itl": ("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"),
    "tpot": ("vllm:request_time_per_output_token_seconds",),
    "e2e": ("vllm:e2e_request_latency_seconds",),
    "queue": ("vllm:request_queue_time_seconds",),
    "prefill": ("vllm:request_prefill_time_seconds",),
    "decode": ("vllm:request_decode_time_seconds",),
}

OOM = re.compile(
    r"CUDA out of memory|torch\.OutOfMemoryError|OutOfMemoryError: CUDA|No available memory for the cache blocks"
    r"|larger than the maximum number of tokens that can be stored in KV cache"
    r"|larger than the available KV cache memory"
    r"|Free memory on device .* is less than desired GPU memory utilization"
    r"|std::bad_alloc|DefaultCPUAllocator: can't allocate memory",
    re.IGNORECASE,
)
PORT_IN_USE = re.compile(r"Address already in use|Errno 98|EADDRINUSE", re.IGNORECASE)
BAD_CONFIG = re.compile(
    r"error: unrecognized arguments|error: argument |error: ambiguous option"
    r"|ValidationError|pydantic_core\._pydantic_core"
    r"|ValueError: (?!.*larger than)"
)
WEIGHTS_GIB = re.compile(r"Model loading took ([0-9.]+) GiB")
ATTENTION = re.compile(r"Using (\w+) (?:attention )?backend", re.IGNORECASE)
MAX_MODEL_LEN = re.compile(r"max_seq_len=(\d+)")
RESOLVED_SECTIONS = (
    "cache_config",
    "scheduler_config",
    "parallel_config",
    "attention_config",
    "compilation_config",
    "device_config",
)
KV_TOKENS = re.compile(r"KV cache size: ([0-9,]+) tokens")


class VllmAdapter:
    """Starts `python -m vllm.entrypoints.openai.api_server` and reads vLLM's metric names."""

    package = "vllm"
    capabilities = Capabilities(
        serves=True,
        in_process=True,
        shares_memory=True,
        needs_free_share=True,
        sizes_kv_cache=True,
        resets_prefix_cache=True,
        profiles=True,
        detokenizes=True,
        reports_kv_usage=True,
        reports_settings=True,
        has_histograms=True,
        is_advised=True,
        measured=True,
    )
    flags = FlagNames(
        max_seqs="max-num-seqs",
        max_model_len="max-model-len",
        memory_fraction="gpu-memory-utilization",
        kv_bytes="kv-cache-memory-bytes",
        reserved=(
            "host",
            "port",
            "model",
            "api-key",
            "served-model-name",
            "load-format",
            "revision",
            "dtype",
            "tokenizer",
        ),
        reserved_variables=("VLLM_API_KEY", "VLLM_HOST_IP"),
        kv_blocks="num-gpu-blocks-override",
        block_tokens="block-size",
        max_batched_tokens="max-num-batched-tokens",
        chunked_prefill="enable-chunked-prefill",
        tensor_parallel="tensor-parallel-size",
        pipeline_parallel="pipeline-parallel-size",
        data_parallel="data-parallel-size",
        expert_parallel="enable-expert-parallel",
        api_servers="api-server-count",
        kv_dtype="kv-cache-dtype",
        quantization="quantization",
        speculation="speculative-config",
        eager="enforce-eager",
        async_scheduling="async-scheduling",
        compilation="compilation-config",
        told={
            "tensor_parallel": ("parallel_config", "tensor_parallel_size"),
            "pipeline_parallel": ("parallel_config", "pipeline_parallel_size"),
            "data_parallel": ("parallel_config", "data_parallel_size"),
            "max_seqs": ("scheduler_config", "max_num_seqs"),
            "max_batched_tokens": ("scheduler_config", "max_num_batched_tokens"),
            "memory_fraction": ("cache_config", "gpu_memory_utilization"),
            "block_tokens": ("cache_config", "block_size"),
            "kv_dtype": ("cache_config", "cache_dtype"),
        },
    )
    ready_path = "/health"
    socket_folder_variable: str | None = "VLLM_RPC_BASE_PATH"
    latency_histograms: Mapping[str, tuple[str, ...]] = LATENCY_HISTOGRAMS
    detokenized_field = "prompt"

    def launch(self, python: str, server: Record, model_target: str, port: int, api_key: str) -> Launch:
        """See EngineAdapter. The key goes through the environment, so that no process list or log shows it."""
        model = server["model"]
        argv = [python, "-m", "vllm.entrypoints.openai.api_server"]
        if "api-server-count" in server["server"]["args"]:  # that entry point knows one API server only
            argv = [python, "-m", "vllm.entrypoints.cli.main", "serve"]
        argv += ["--host", "127.0.0.1", "--port", str(port)]
        argv += ["--served-model-name", model["name"], *model_flags(model, model_target)]
        argv += flag_list(server["server"]["args"])
        env = {
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
            "VLLM_SERVER_DEV_MODE": "1",
        }
        if model["weights"] != "hub":
            env["HF_HUB_OFFLINE"] = "1"
        return Launch(argv, {**env, **server["server"]["env"], "VLLM_API_KEY": api_key, "VLLM_HOST_IP": "127.0.0.1"})

    def metrics_sample(self, page: Page) -> dict[str, float]:
        """See EngineAdapter; several engines of one server are summed, KV usage is the fullest one's."""
        found = {column: total(page, name) for column, name in {**GAUGES, **COUNTERS}.items()}
        usage = [value for value in (largest(page, name) for name in KV_USAGE) if value is not None]
        found["kv_cache_usage_fraction"] = usage[0] if usage else None
        return {column: value for column, value in found.items() if value is not None}

    def facts(self, base_url: str, server: Record, log: str, api_key: str = "") -> EngineFacts:
        """See EngineAdapter. The pool comes from `vllm:cache_config_info`, the rest from `/server_info` and the log."""
        facts = EngineFacts(resolved=_resolved(base_url))
        cache = labels_of(parse_page(_get(base_url, "/metrics") or ""), "vllm:cache_config_info")
        facts.resolved.setdefault("cache_config", dict(cache))
        facts.version = json.loads(_get(base_url, "/version") or "{}").get("version")
        facts.num_gpu_blocks = _integer(cache.get("num_gpu_blocks"))
        facts.kv_block_tokens = _integer(cache.get("block_size"))
        facts.kv_pool_tokens = _integer(cache.get("kv_cache_size_tokens"))
        if facts.kv_pool_tokens is None and (logged := KV_TOKENS.search(log)):
            facts.kv_pool_tokens = int(logged[1].replace(",", ""))
        if facts.kv_pool_tokens is None and facts.num_gpu_blocks and facts.kv_block_tokens:
            facts.kv_pool_tokens = facts.num_gpu_blocks * facts.kv_block_tokens
        model = held(server["model"], self.flags, server["server"]["args"], cache.get("cache_dtype"))
        facts.kv_pool_bytes = model.pool_bytes(facts.kv_pool_tokens)
        if (utilization := cache.get("gpu_memory_utilization")) not in (None, "None"):
            facts.gpu_memory_utilization = float(str(utilization))
        if logged := MAX_MODEL_LEN.search(log):
            facts.max_model_len = int(logged[1])
        if loaded := WEIGHTS_GIB.search(log):
            facts.weights_bytes, facts.weights_bytes_source = round(float(loaded[1]) * 2**30), "log"
        else:
            facts.weights_bytes = model.weights_bytes
            facts.weights_bytes_source = "architecture"
        if logged := ATTENTION.search(log):
            facts.resolved["attention_backend"] = logged[1]
        return facts

    def reset_prefix_cache(self, base_url: str, api_key: str = "") -> bool:
        """See EngineAdapter; the endpoint is there because the server runs in developer mode."""
        request = urllib.request.Request(f"{base_url}/reset_prefix_cache", data=b"")
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                answer = json.loads(response.read() or b"{}")
        except (OSError, http.client.HTTPException, ValueError):
            return False
        return bool(answer.get("success", True)) if isinstance(answer, dict) else True

    def profiler_flags(self, folder: Path) -> list[str]:
        """See EngineAdapter; only the workers are profiled, without Python stacks."""
        profiler = {
            "profiler": "torch",
            "torch_profiler_dir": str(folder),
            "torch_profiler_with_stack": False,
            "ignore_frontend": True,
        }
        return ["--profiler-config", canonical_json(profiler)]

    def measures_free_memory(self, server: Record) -> bool:
        """See EngineAdapter; a pool of given size is not measured."""
        return "kv-cache-memory-bytes" not in server["server"]["args"]

    def failure_kind(self, log: str) -> str | None:
        """See EngineAdapter."""
        for kind, pattern in (("oom", OOM), ("port_in_use", PORT_IN_USE), ("bad_config", BAD_CONFIG)):
            if pattern.search(log):
                return kind
        return None


def _get(base_url: str, path: str) -> str | None:
    try:
        with urllib.request.urlopen(f"{base_url}{path}", timeout=10) as response:
            return str(response.read().decode("utf-8", "replace"))
    except OSError:
        return None


def _resolved(base_url: str) -> dict[str, Any]:
    """Return the effective settings, defaults included, which a server in developer mode reports at /server_info.

    Only the sections below and only plain values of them are kept: nothing that could hold a token or a path.
    """
    try:
        config = json.loads(_get(base_url, "/server_info?config_format=json") or "{}")["vllm_config"]
    except (ValueError, KeyError, TypeError, IndexError):
        return {}
    if not isinstance(config, dict):
        return {}
    return {
        section: {name: value for name, value in config[section].items() if isinstance(value, (bool, int, float, str))}
        for section in RESOLVED_SECTIONS
        if isinstance(config.get(section), dict)
    }


def _integer(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None
